# The harness beside the engines' own instruments: llama-bench in one interleaved run, vLLM's own times in the main experiment's trials.
LLAMACPP_PHASES = [phase for phase in PHASES if first_job(phase).engine == "llamacpp"]
MAIN = cells_of("main")


rule llama_bench:
    output:
        rounds="results/peers/rounds.parquet",
        seal="results/peers/rounds.parquet.sha256",
    log:
        "results/logs/llama_bench.log",
    priority: 30
    threads: workflow.cores
    resources:
        machine=100,
    params:
        jobs=[settings_job(phase) for phase in LLAMACPP_PHASES],
        lengths=[
            CONFIG.lengths_of(name).model_dump_json() for name in CONFIG.configurations
        ],
        rounds=CONFIG.peer_rounds,
        entry=lambda wildcards: model_entry(CONFIG.model_of(LLAMACPP_PHASES[0])),
        model=lambda wildcards: CONFIG.model_of(LLAMACPP_PHASES[0]),
        code=code_hash("peers.py"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/restore.py --job {params.jobs[0]:q} --entry {params.entry:q} --models models"
        " --downloads results/setup/downloads &&"
        " exec {ENVIRONMENTS:q}/llamacpp/.venv/bin/python {SCRIPTS:q}/time_peers.py --jobs {params.jobs:q}"
        " --gguf models/{params.model:q}-F16.gguf --lengths {params.lengths:q} --rounds {params.rounds} --out {output.rounds:q} --log {log:q}"


rule peers:
    input:
        rounds=rules.llama_bench.output.rounds if LLAMACPP_PHASES else [],
        trials="results/experiments/main/trials.parquet" if MAIN else [],
    output:
        table="results/peers/peers.parquet",
        seal="results/peers/peers.parquet.sha256",
        text="results/peers/peers.txt",
    params:
        rounds=lambda wildcards, input: "--rounds" if input.rounds else "",
        trials=lambda wildcards, input: "--trials" if input.trials else "",
        code=code_hash("peers.py", "statistics.py", "tables.py"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/compare_peers.py {params.rounds} {input.rounds:q} {params.trials} {input.trials:q} --out results/peers"
