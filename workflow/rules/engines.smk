# Engines: their environments and builds, cached by content outside the checkout, and what is in force when they run.


rule environment:
    output:
        "results/setup/environments/{environment}.json",
    priority: 100
    resources:
        machine=100,
    params:
        key=lambda wildcards: next(
            job.environment_key + job.engine_key
            for job in JOBS.values()
            if job.environment == wildcards.environment
        ),
        build=lambda wildcards: (
            f"--llamacpp {ACCELERATOR}" if wildcards.environment == "llamacpp" else ""
        ),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/set_up.py {wildcards.environment:q} {params.build} --record {output:q}"


def setup_records():
    """The records of everything that the phases need before they can run."""
    needs = []
    for job in JOBS.values():
        needs += [
            f"results/setup/environments/{job.environment}.json",
            f"results/setup/models/{job.model.name}.json",
        ]
        if job.engine == "llamacpp":
            needs.append(f"results/setup/gguf/{job.model.name}.json")
    return list(dict.fromkeys(needs))


# What is set up and agreed is no input of a measuring job, nor of this one. As plain inputs, an engine that was built again
# would measure every cell again; as ancient() ones, it would hide that a cell's own job has changed, since Snakemake does not
# look at the params of a job below one that will run. So priorities set the order: setup, preflight, comparison, cells.
# Where that is not enough (something was deleted later), restore.py makes what is missing.
rule preflight:
    output:
        "results/preflight/{phase}.json",
    log:
        "results/logs/preflight/{phase}.log",
    wildcard_constraints:
        phase="|".join(PHASES),
    priority: 80
    resources:
        machine=100,
    params:
        job=lambda wildcards: settings_job(wildcards.phase),
        entry=lambda wildcards: model_entry(CONFIG.model_of(wildcards.phase)),
        model=lambda wildcards: CONFIG.model_of(wildcards.phase),
        environment=lambda wildcards: first_job(wildcards.phase).environment,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/restore.py --job {params.job:q} --entry {params.entry:q} --models models"
        " --downloads results/setup/downloads &&"
        " exec {ENVIRONMENTS:q}/{params.environment}/.venv/bin/python {SCRIPTS:q}/preflight.py --job {params.job:q}"
        " --model models/{params.model:q} --gguf models/{params.model:q}-F16.gguf --out {output:q} --log {log:q} --owner $PPID"


# Before anything is measured: what must agree between the two interfaces of an engine does.
rule settings:
    input:
        expand("results/preflight/{phase}.json", phase=PHASES),
    output:
        "results/preflight/agreed.json",
    priority: 70
    shell:
        "{PYTHON:q} {SCRIPTS:q}/compare_settings.py --out {output:q} {input:q}"
