# Models: safetensors from the Hub, generated or of this machine, and GGUF for llama.cpp. The outputs are small records.


rule model:
    output:
        "results/setup/models/{model}.json",
    log:
        "results/logs/setup/models/{model}.log",
    priority: 100
    params:
        program=command_of("prepare_model", "--plan", PLAN),
        entry=lambda wildcards: STUDY.config.models[wildcards.model].identity,
    message:
        "preparing the model {wildcards.model}"
    shell:
        "{params.program} {wildcards.model:q} --record {output:q} 2>&1 | tee -i {log:q} >&2"


rule gguf:
    input:
        "results/setup/models/{model}.json",
    output:
        "results/setup/gguf/{model}.json",
    log:
        "results/logs/setup/gguf/{model}.log",
    priority: 90
    params:
        program=command_of("prepare_model", "--plan", PLAN),
        entry=lambda wildcards: STUDY.config.models[wildcards.model].identity,
        accelerator=STUDY.accelerator,
    message:
        "preparing the GGUF file of the model {wildcards.model}"
    shell:
        "{params.program} {wildcards.model:q} --weights gguf --accelerator {params.accelerator}"
        " --record {output:q} 2>&1 | tee -i {log:q} >&2"
