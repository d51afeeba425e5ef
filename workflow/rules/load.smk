# What one client's miss costs its neighbours: snakemake load
LOADED = [
    phase
    for phase in STUDY.phases
    if phase in STUDY.preflights and STUDY.preflights[phase].interface == "http"
]
# Most tokens computed in one step: as the configuration says, which is the whole prompt, and a part of it (chunked prefill).
PIECES = {"whole": "", "chunked": "--batch-tokens 128"}


rule measure_load:
    output:
        rows="results/load/{asked}-{pieces}.parquet",
        seal="results/load/{asked}-{pieces}.parquet.sha256",
        record="results/load/{asked}-{pieces}.json",
    log:
        "results/logs/load/{asked}-{pieces}.log",
    wildcard_constraints:
        asked="|".join(map(re.escape, LOADED)) or "none",
        pieces="|".join(PIECES),
    priority: 35
    threads: workflow.cores
    resources:
        machine=100,
    params:
        program=command_of("in_environment", "measure_load", "--plan", PLAN),
        job=lambda wildcards: STUDY.preflights[wildcards.asked].digest,
        pieces=lambda wildcards: PIECES[wildcards.pieces],
        code=digest("measure_load"),
    message:
        "{wildcards.asked}: what a miss costs its neighbours, prompts computed {wildcards.pieces}"
    shell:
        "{params.program} --phase {wildcards.asked:q} {params.pieces}"
        " --out {output.rows:q} --log {log:q}"


rule load:
    input:
        expand("results/load/{asked}-{pieces}.parquet", asked=LOADED, pieces=PIECES),
    output:
        table="results/load/load.parquet",
        seal="results/load/load.parquet.sha256",
        figure=drawn("fig13_load", "Load"),
    log:
        "results/logs/load.log",
    params:
        program=command_of("draw_load", "--plan", PLAN),
        caption=caption,
        look=STUDY.config.figures.model_dump_json(),
        code=digest("draw_load"),
    message:
        "drawing what a miss costs its neighbours"
    shell:
        "{params.program} {input:q} --out {output.table:q} --figure {output.figure:q} 2>&1 | tee -i {log:q} >&2"
