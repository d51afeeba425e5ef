# From raw requests to trials, summary and the table of medians.


rule aggregate:
    input:
        setup=setup_records(),
        agreed="results/preflight/agreed.json",
        requests=[f"results/raw/{cell}/requests.parquet" for cell in JOBS],
        provenance=[f"results/raw/{cell}/provenance.json" for cell in JOBS],
    output:
        "results/requests.parquet",
        "results/trials.parquet",
        "results/summary.parquet",
        "results/summary.txt",
    params:
        cells=list(JOBS),
        code=code_hash("aggregate.py", "statistics.py", "tables.py"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/aggregate.py --raw results/raw --cells {params.cells:q} --out results"
