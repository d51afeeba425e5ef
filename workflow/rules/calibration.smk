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
        samples=CONFIG.calibration_samples,
        code=code_hash(
            "clock.py",
            "engines/http.py",
            "server.py",
            "calibration/engines.py",
            "calibration/null_server.py",
            "calibration/sample.py",
        ),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/calibrate.py --out results/calibration --log {log:q} --samples {params.samples}"


rule calibration_figure:
    input:
        samples=rules.calibration.output.samples,
    output:
        expand("figures/calibration.{format}", format=FORMATS),
    params:
        style=CONFIG.figures.model_dump_json(),
        code=code_hash("figures/calibration.py", "figures/style.py"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot.py calibration --samples {input.samples:q} --style {params.style:q} --out {output:q}"
