# Figures, each from the experiments it shows, with the drawn rows and a caption beside it. The list: src/coldprefix/study/registry.py.


for name, figure in FIGURES.items():

    rule:
        name:
            name
        input:
            trials=expand(
                "results/experiments/{e}/trials.parquet", e=figure.experiments
            ),
            summary=expand(
                "results/experiments/{e}/summary.parquet", e=figure.experiments
            ),
            provenance=expand(
                "results/experiments/{e}/provenance.json", e=figure.experiments
            ),
        output:
            drawn(name, "Backends" if figure.phase else "Figures"),
        log:
            f"results/logs/figures/{name}.log",
        params:
            program=command_of("plot", name, "--plan", PLAN),
            caption=caption,
            look=STUDY.config.figures.model_dump_json(),
            code=digest("plot"),
        message:
            f"drawing {name}"
        shell:
            "{params.program} --trials {input.trials:q} --summary {input.summary:q}"
            " --provenance {input.provenance:q} --out {output:q} 2>&1 | tee -i {log:q} >&2"
