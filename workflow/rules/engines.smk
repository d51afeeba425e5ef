# Engines: their environments and builds, cached by content outside the checkout, and what is in force when they run.


rule environment:
    output:
        "results/setup/environments/{environment}.json",
    priority: 100
    resources:
        machine=100,
    params:
        key=lambda wildcards: STUDY.in_environment(
            wildcards.environment
        ).environment_key,
        build=lambda wildcards: STUDY.in_environment(wildcards.environment).engine_key,
        engine=lambda wildcards: STUDY.in_environment(wildcards.environment).engine,
        accelerator=lambda wildcards: STUDY.in_environment(
            wildcards.environment
        ).accelerator,
    message:
        "setting up the environment {wildcards.environment}"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/set_up.py {wildcards.environment:q} --engine {params.engine} --accelerator {params.accelerator}"
        " --record {output:q}"


# What is set up and agreed is no input of a measuring job, nor of this one. As plain inputs, an engine that was built again
# would measure every cell again; as ancient() ones, it would hide that a cell's own job has changed, since Snakemake does not
# look at the params of a job below one that will run. So priorities set the order: setup, preflight, comparison, cells.
# Where that is not enough (something was deleted later), in_environment.py makes what is missing.
rule preflight:
    output:
        "results/preflight/{asked}.json",
    log:
        "results/logs/preflight/{asked}.log",
    wildcard_constraints:
        asked="|".join(map(re.escape, STUDY.preflights)),
    priority: 80
    resources:
        machine=100,
    params:
        digest=lambda wildcards: STUDY.preflights[wildcards.asked].digest,
    message:
        "{wildcards.asked}: asking the engine what is in force"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/in_environment.py preflight --plan {PLAN:q} --phase {wildcards.asked:q} --out {output:q} --log {log:q}"


# Before anything is measured: what must agree between the two interfaces of an engine does.
rule settings:
    input:
        expand("results/preflight/{asked}.json", asked=STUDY.preflights),
    output:
        "results/preflight/agreed.json",
    priority: 70
    message:
        "comparing what is in force on the interfaces of an engine"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/compare_settings.py --out {output:q} {input:q}"
