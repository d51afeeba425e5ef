# From raw requests to trials, summary and the table of medians: per experiment, so that a figure needs only the cells it shows,
# and all together, which is what the claims and the report are made from.


rule experiment:
    input:
        setup=setup_records(),
        agreed="results/preflight/agreed.json",
        requests=lambda wildcards: raw(
            cells_of(wildcards.experiment), "requests.parquet"
        ),
        provenance=lambda wildcards: raw(
            cells_of(wildcards.experiment), "provenance.json"
        ),
    output:
        trials="results/experiments/{experiment}/trials.parquet",
        summary="results/experiments/{experiment}/summary.parquet",
        seals=expand(
            "results/experiments/{{experiment}}/{table}.parquet.sha256",
            table=["trials", "summary"],
        ),
        all_provenance="results/experiments/{experiment}/provenance.json",
        text="results/experiments/{experiment}/summary.txt",
    params:
        cells=lambda wildcards: braces(cells_of(wildcards.experiment)),
        code=code_hash(
            "aggregate.py", "caveats.py", "costs.py", "statistics.py", "tables.py"
        ),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/aggregate.py --raw results/raw --cells {params.cells} --out results/experiments/{wildcards.experiment:q}"


rule aggregate:
    input:
        setup=setup_records(),
        agreed="results/preflight/agreed.json",
        requests=raw(JOBS, "requests.parquet"),
        provenance=raw(JOBS, "provenance.json"),
    output:
        expand(
            "results/{table}.parquet{seal}",
            table=["requests", "trials", "summary"],
            seal=["", ".sha256"],
        ),
        "results/provenance.json",
        "results/summary.txt",
    params:
        cells=lambda wildcards: braces(JOBS),
        code=code_hash(
            "aggregate.py", "caveats.py", "costs.py", "statistics.py", "tables.py"
        ),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/aggregate.py --raw results/raw --cells {params.cells} --out results --requests"
