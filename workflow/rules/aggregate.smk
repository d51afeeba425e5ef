# From raw requests to trials, summary and the table of medians: per experiment, so that a figure needs only the cells it shows,
# and all together, which is what the claims and the report are made from.


rule experiment:
    input:
        setup=STUDY.setup_records(),
        agreed="results/preflight/agreed.json",
        requests=lambda wildcards: raw(
            STUDY.cells(wildcards.experiment), "requests.parquet"
        ),
        provenance=lambda wildcards: raw(
            STUDY.cells(wildcards.experiment), "provenance.json"
        ),
    output:
        trials="results/experiments/{experiment}/trials.parquet",
        summary="results/experiments/{experiment}/summary.parquet",
        self_check="results/experiments/{experiment}/self_check.parquet",
        seals=expand(
            "results/experiments/{{experiment}}/{table}.parquet.sha256",
            table=["trials", "summary", "self_check"],
        ),
        all_provenance="results/experiments/{experiment}/provenance.json",
        text="results/experiments/{experiment}/summary.txt",
    log:
        "results/logs/experiments/{experiment}.log",
    params:
        program=command_of("aggregate", "--plan", PLAN),
        code=digest("aggregate"),
        vary=STUDY.config.vary,
    message:
        "putting the cells of {wildcards.experiment} together"
    shell:
        "{params.program} --experiment {wildcards.experiment:q} --out results/experiments/{wildcards.experiment:q}"
        " 2>&1 | tee -i {log:q} >&2"


rule aggregate:
    input:
        setup=STUDY.setup_records(),
        agreed="results/preflight/agreed.json",
        requests=raw(STUDY.jobs, "requests.parquet"),
        provenance=raw(STUDY.jobs, "provenance.json"),
    output:
        expand(
            "results/{table}.parquet{seal}",
            table=["requests", "trials", "summary", "self_check"],
            seal=["", ".sha256"],
        ),
        "results/provenance.json",
        "results/summary.txt",
    log:
        "results/logs/aggregate.log",
    params:
        program=command_of("aggregate", "--plan", PLAN),
        code=digest("aggregate"),
        vary=STUDY.config.vary,
    message:
        "putting all cells together"
    shell:
        "{params.program} --out results --requests 2>&1 | tee -i {log:q} >&2"
