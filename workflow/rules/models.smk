# Models: safetensors from the Hub or generated, and GGUF F16 for llama.cpp.
# The outputs are small records. The models themselves are no outputs: deleting or remaking an identical one
# measures nothing again (see workflow/scripts/restore.py).


rule model:
    output:
        "results/setup/models/{model}.json",
    params:
        entry=lambda wildcards: model_entry(wildcards.model),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/prepare_model.py {wildcards.model:q} --entry {params.entry:q} --models models"
        " --downloads results/setup/downloads --record {output:q}"


rule gguf:
    input:
        ancient("results/setup/models/{model}.json"),
    output:
        "results/setup/gguf/{model}.json",
    params:
        entry=lambda wildcards: model_entry(wildcards.model),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/prepare_model.py {wildcards.model:q} --entry {params.entry:q} --models models --gguf"
        " --downloads results/setup/downloads --record {output:q}"
