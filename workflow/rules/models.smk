# Models: safetensors from the Hub, generated or of this machine, and GGUF for llama.cpp. The outputs are small records.


rule model:
    output:
        "results/setup/models/{model}.json",
    priority: 100
    params:
        entry=lambda wildcards: STUDY.config.models[wildcards.model].identity,
    message:
        "preparing the model {wildcards.model}"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/prepare_model.py {wildcards.model:q} --plan {PLAN:q} --record {output:q}"


rule gguf:
    input:
        "results/setup/models/{model}.json",
    output:
        "results/setup/gguf/{model}.json",
    priority: 90
    params:
        entry=lambda wildcards: STUDY.config.models[wildcards.model].identity,
        accelerator=STUDY.accelerator,
    message:
        "preparing the GGUF file of the model {wildcards.model}"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/prepare_model.py {wildcards.model:q} --plan {PLAN:q} --weights gguf --accelerator {params.accelerator}"
        " --record {output:q}"
