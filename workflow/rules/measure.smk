# One job per cell: phase x configuration x cache state, in a sweep phase x variant x configuration x cache state. It owns its engine. Rules
# are named after the phases, so that `snakemake --forcerun phase3b` measures phase3b again.


for phase in STUDY.phases:

    rule:
        name:
            phase
        output:
            requests=f"results/raw/{phase}/{{cell}}/requests.parquet",
            provenance=f"results/raw/{phase}/{{cell}}/provenance.json",
        log:
            f"results/logs/{phase}/{{cell}}.log",
        # From 50 down to 40, in the order of the plan, which is seeded: no state and no phase is always measured first.
        priority: rank_of(phase)
        threads: workflow.cores
        resources:
            machine=100,
        # All that decides whether the cell is stale. Snakemake compares only those params with the last run's whose function takes
        # nothing but wildcards.
        params:
            program=command_of("in_environment", "measure", "--plan", PLAN),
            digest=measured_by(phase),
            cell=cell_of(phase),
        message:
            f"measuring {phase}/{{wildcards.cell}}"
        shell:
            "{params.program} --cell {params.cell:q} --digest {params.digest} --log {log:q}"
