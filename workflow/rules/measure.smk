# One job per cell: phase x configuration x cache state, in a sweep phase x variant x configuration x cache state. It owns its engine. Rules are named after the phases, so that
# `snakemake --forcerun phase3b` measures phase3b again.


onstart:
    # What Snakemake will not believe to be whole, because it was killed before it could note so.
    asked = workflow.dag_settings
    due = [j for j in workflow.dag.needrun_jobs() if j.rule.name in PHASES]
    forced = [j for j in due if asked.forceall or j.rule.name in asked.forcerun]
    path = lambda job: f"{job.rule.name}/{job.wildcards.cell}"
    raw_files.forget_aside(Path("results/raw"), map(path, forced))
    raw_files.set_aside(
        Path("results/raw"),
        [path(job) for job in due if job not in forced],
        Path(".snakemake/incomplete"),
    )


for number, phase in enumerate(PHASES):

    rule:
        name:
            phase
        output:
            requests=f"results/raw/{phase}/{{cell}}/requests.parquet",
            provenance=f"results/raw/{phase}/{{cell}}/provenance.json",
        log:
            f"results/logs/{phase}/{{cell}}.log",
        # One phase after the other: its cells may share a server. $PPID is Snakemake, with which such a server ends.
        priority: 50 - number
        threads: workflow.cores
        resources:
            machine=100,
        params:
            job=job_param(phase),
            entry=model_entry(CONFIG.model_of(phase)),
            model=CONFIG.model_of(phase),
            environment=first_job(phase).environment,
        shell:
            "{PYTHON:q} {SCRIPTS:q}/restore.py --job {params.job:q} --entry {params.entry:q} --models models"
            " --downloads results/setup/downloads &&"
            " exec {ENVIRONMENTS:q}/{params.environment}/.venv/bin/python {SCRIPTS:q}/measure.py --job {params.job:q}"
            " --model models/{params.model:q} --gguf models/{params.model:q}-F16.gguf"
            " --requests {output.requests:q} --provenance {output.provenance:q} --log {log:q} --owner $PPID"
