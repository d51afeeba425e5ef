# Models: safetensors from the Hub or generated, and GGUF F16 for llama.cpp. The outputs are small records.


rule model:
    output:
        "results/setup/models/{model}.json",
    priority: 100
    params:
        entry=lambda wildcards: model_entry(wildcards.model),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/prepare_model.py {wildcards.model:q} --entry {params.entry:q} --models models"
        " --downloads results/setup/downloads --record {output:q}"


rule gguf:
    input:
        "results/setup/models/{model}.json",
    output:
        "results/setup/gguf/{model}.json",
    priority: 90
    params:
        entry=lambda wildcards: model_entry(wildcards.model),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/prepare_model.py {wildcards.model:q} --entry {params.entry:q} --models models --gguf"
        " --downloads results/setup/downloads --record {output:q}"
