# Advice on a prompt: snakemake --config layout=prompt.yaml experiments=layout


if STUDY.config.layout:

    rule layout:
        input:
            prompt=STUDY.config.layout,
            trials="results/experiments/layout/trials.parquet",
            agreed="results/preflight/agreed.json",
            provenance="results/experiments/layout/provenance.json",
        output:
            "results/layout/advice.parquet",
            "results/layout/advice.parquet.sha256",
            page="results/layout/advice.md",
            figure=drawn("layout", "Advice"),
        log:
            "results/logs/layout.log",
        params:
            program=command_of("advise", "--plan", PLAN),
            caption=caption,
            look=STUDY.config.figures.model_dump_json(),
            code=digest("advise"),
        message:
            "advising on {input.prompt}"
        shell:
            "{params.program} --prompt {input.prompt:q} --trials {input.trials:q} --agreed {input.agreed:q}"
            " --provenance {input.provenance:q} --out results/layout --figure {output.figure:q}"
            " 2>&1 | tee -i {log:q} >&2"
