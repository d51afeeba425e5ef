# How far the clock can be trusted: the harness against engines whose times are known. Measured once per version of the code
# that has to do with the clock, before the cells.


rule calibration:
    output:
        samples="results/calibration/samples.parquet",
        summary="results/calibration/summary.parquet",
        seals=expand(
            "results/calibration/{table}.parquet.sha256", table=["samples", "summary"]
        ),
        text="results/calibration/calibration.txt",
    log:
        "results/logs/calibration.log",
    priority: 60
    threads: workflow.cores
    resources:
        machine=100,
    params:
        program=command_of("calibrate"),
        samples=STUDY.config.calibration_samples,
        threads=resolve_threads(STUDY.config.threads),
        code=digest("calibrate"),
    message:
        "measuring the harness against engines whose times are known"
    shell:
        "{params.program} --out results/calibration --log {log:q} --samples {params.samples}"
        " --threads {params.threads}"


rule calibration_figure:
    input:
        samples=rules.calibration.output.samples,
    output:
        drawn("calibration", "Instrument"),
    log:
        "results/logs/figures/calibration.log",
    params:
        program=command_of("plot", "calibration", "--plan", PLAN),
        caption=caption,
        look=STUDY.config.figures.model_dump_json(),
        code=digest("plot"),
    message:
        "drawing the calibration"
    shell:
        "{params.program} --samples {input.samples:q} --out {output:q} 2>&1 | tee -i {log:q} >&2"
