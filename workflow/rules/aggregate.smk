# From raw requests to trials, summary and the table of medians.


rule aggregate:
    input:
        agreed=ancient("results/preflight/agreed.json"),
        requests=[f"results/raw/{cell}/requests.parquet" for cell in JOBS],
        provenance=[f"results/raw/{cell}/provenance.json" for cell in JOBS],
    output:
        "results/requests.parquet",
        "results/trials.parquet",
        "results/summary.parquet",
        "results/summary.txt",
    params:
        command=script("aggregate.py"),
        cells=list(JOBS),
        code=code_hash("aggregate.py", "statistics.py", "tables.py"),
    shell:
        "{params.command} --raw results/raw --cells {params.cells:q} --out results"
