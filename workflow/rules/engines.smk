# Engines: their environments and builds, cached by content outside the checkout, and what is in force when they run.


rule environment:
    output:
        "results/setup/environments/{environment}.json",
    resources:
        machine=100,
    params:
        key=lambda wildcards: next(
            j.environment_key + j.engine_key
            for j in JOBS.values()
            if j.environment == wildcards.environment
        ),
        build=lambda wildcards: (
            f"--llamacpp {ACCELERATOR}" if wildcards.environment == "llamacpp" else ""
        ),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/set_up.py {wildcards.environment:q} {params.build} --record {output:q}"


def setup_of(phase):
    """The records that must exist before a phase can run."""
    job = first_job(phase)
    needs = [
        f"results/setup/environments/{job.environment}.json",
        f"results/setup/models/{job.model.name}.json",
    ]
    if job.engine == "llamacpp":
        needs.append(f"results/setup/gguf/{job.model.name}.json")
    return needs


def settings_job(phase):
    """A job for reading the settings of a phase: its prompt and protocol are always the same, so that changing those of the
    cells does not start the engines again."""
    job = first_job(phase)
    protocol = {**job.protocol.model_dump(), "trials": 1, "burn_in": 0, "replicates": 1, "settle_ms": 0, "stream_tokens": 2}
    protocol |= {"seed": 0, "content": "fresh", "reset": "never", "max_rejected": 0.0}
    values = {**job.model_dump(), "protocol": protocol, "configuration": "A128_B128", "state": "hit"}
    values |= {"lengths": {"A": 128, "B": 128, "Q": 8}}
    return type(job).model_validate(values).model_dump_json(exclude_none=True)


rule preflight:
    input:
        lambda wildcards: [ancient(path) for path in setup_of(wildcards.phase)],
    output:
        "results/preflight/{phase}.json",
    log:
        "results/logs/preflight/{phase}.log",
    wildcard_constraints:
        phase="|".join(CONFIG.phases),
    priority: 10
    resources:
        machine=100,
    params:
        job=lambda wildcards: first_job(wildcards.phase).model_dump_json(
            exclude_none=True
        ),
        entry=lambda wildcards: model_entry(first_job(wildcards.phase).model.name),
        model=lambda wildcards: first_job(wildcards.phase).model.name,
        environment=lambda wildcards: first_job(wildcards.phase).environment,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/restore.py --job {params.job:q} --entry {params.entry:q} --models models --downloads results/setup/downloads &&"
        " exec {ENVIRONMENTS:q}/{params.environment}/.venv/bin/python {SCRIPTS:q}/preflight.py --job {params.job:q} --model models/{params.model:q}"
        " --gguf models/{params.model:q}-F16.gguf --out {output:q} --log {log:q}"


# Before anything is measured: what must agree between the two interfaces of an engine does.
rule settings:
    input:
        expand("results/preflight/{phase}.json", phase=CONFIG.phases),
    output:
        "results/preflight/agreed.json",
    priority: 10
    shell:
        "{PYTHON:q} {SCRIPTS:q}/compare_settings.py --out {output:q} {input:q}"
