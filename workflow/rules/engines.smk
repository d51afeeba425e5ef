# Engines: their environments and builds, cached by content outside the checkout, and what is in force when they run.


rule environment:
    output:
        "results/setup/environments/{environment}.json",
    log:
        "results/logs/setup/environments/{environment}.log",
    priority: 100
    resources:
        machine=100,
    params:
        program=command_of("set_up"),
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
        "{params.program} {wildcards.environment:q} --engine {params.engine} --accelerator {params.accelerator}"
        " --record {output:q} 2>&1 | tee -i {log:q} >&2"


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
        program=command_of("in_environment", "preflight", "--plan", PLAN),
        digest=lambda wildcards: STUDY.preflights[wildcards.asked].digest,
    message:
        "{wildcards.asked}: asking the engine what is in force"
    shell:
        "{params.program} --phase {wildcards.asked:q} --out {output:q} --log {log:q}"


# Before anything is measured: what must agree between the two interfaces of an engine does.
rule settings:
    input:
        expand("results/preflight/{asked}.json", asked=STUDY.preflights),
    output:
        "results/preflight/agreed.json",
    log:
        "results/logs/preflight/agreed.log",
    priority: 70
    params:
        program=command_of("compare_settings"),
    message:
        "comparing what is in force on the interfaces of an engine"
    shell:
        "{params.program} --out {output:q} {input:q} 2>&1 | tee -i {log:q} >&2"
