# Figures, each with the rows it shows beside it.


def provenance_of(*phases):
    return [
        f"results/raw/{cell}/provenance.json"
        for cell, job in JOBS.items()
        if job.phase in phases
    ]


rule fig1:
    input:
        summary="results/summary.parquet",
        provenance=provenance_of(*CONFIG.phases),
    output:
        expand("figures/fig1_invalidation.{format}", format=FORMATS),
    params:
        style=CONFIG.figures.model_dump_json(),
        code=code_hash("figures/fig1.py", "figures/style.py"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot.py fig1 --summary {input.summary:q} --provenance {input.provenance:q} --style {params.style:q} --out {output:q}"


rule phase_panels:
    input:
        summary="results/summary.parquet",
        provenance=lambda wildcards: provenance_of(wildcards.phase),
    output:
        expand("figures/{{phase}}_panels.{format}", format=FORMATS),
    wildcard_constraints:
        phase="|".join(CONFIG.phases),
    params:
        style=CONFIG.figures.model_dump_json(),
        code=code_hash("figures/phase_panels.py", "figures/style.py"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot.py {wildcards.phase} --summary {input.summary:q} --provenance {input.provenance:q}"
        " --style {params.style:q} --out {output:q}"
