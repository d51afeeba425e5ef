# Figures, each from the experiments it shows, with the drawn rows and a caption beside it.
FIGURES = {
    "fig1_invalidation": (["main"], PHASES),
    "fig2_scaling": (["scaling"], PHASES),
    "fig3_architectures": (["main", "confound"], PHASES),
    "fig4_cascade": (["main", "host_tier"], PHASES),
    "fig5_batch_size": (["batch_size"], PHASES),
    "fig6_confound": (["confound"], PHASES),
}
FIGURES |= {f"{phase}_panels": (["main"], [phase]) for phase in PHASES}
# What can be drawn from the experiments that config.yaml asks for.
FIGURES = {
    name: needs
    for name, needs in FIGURES.items()
    if all(cells_of(experiment, phases=needs[1]) for experiment in needs[0])
}


for name, (needed, phases) in FIGURES.items():

    rule:
        name:
            name
        input:
            trials=expand("results/experiments/{e}/trials.parquet", e=needed),
            summary=expand("results/experiments/{e}/summary.parquet", e=needed),
            provenance=expand("results/experiments/{e}/provenance.json", e=needed),
        output:
            expand(f"figures/{name}.{{format}}", format=FORMATS),
        params:
            figure=name,
            style=CONFIG.figures.model_dump_json(),
            code=code_hash(
                f"figures/{name if name.startswith('fig') else 'phase_panels'}.py",
                "figures/style.py",
                "statistics.py",
            ),
        shell:
            "{PYTHON:q} {SCRIPTS:q}/plot.py {params.figure:q} --trials {input.trials:q} --summary {input.summary:q}"
            " --provenance {input.provenance:q} --style {params.style:q} --out {output:q}"
