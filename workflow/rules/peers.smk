# The harness beside the engines' own instruments: llama-bench in one interleaved run, vLLM's own times in the main experiment's trials.
BENCHED = [
    phase for phase in STUDY.phases if STUDY.preflights[phase].engine == "llamacpp"
]
MAIN = STUDY.cells("main")


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
        program=command_of("in_environment", "time_peers", "--plan", PLAN),
        jobs=[STUDY.preflights[phase].digest for phase in BENCHED],
        lengths=STUDY.config.configurations,
        question=STUDY.config.question_tokens,
        rounds=STUDY.config.peer_rounds,
        phases=BENCHED,
        code=digest("time_peers"),
    message:
        "timing llama-bench beside misses"
    shell:
        "{params.program} --phase {params.phases[0]} --also {params.phases}"
        " --rounds {params.rounds} --out {output.rounds:q} --log {log:q}"


rule peers:
    input:
        rounds=rules.llama_bench.output.rounds if BENCHED else [],
        trials="results/experiments/main/trials.parquet" if MAIN else [],
    output:
        table="results/peers/peers.parquet",
        seal="results/peers/peers.parquet.sha256",
        text="results/peers/peers.txt",
    log:
        "results/logs/peers.log",
    params:
        program=command_of("compare_peers"),
        rounds=lambda wildcards, input: "--rounds" if input.rounds else "",
        trials=lambda wildcards, input: "--trials" if input.trials else "",
        code=digest("compare_peers"),
    message:
        "setting the harness beside the engines' own instruments"
    shell:
        "{params.program} {params.rounds} {input.rounds:q} {params.trials} {input.trials:q} --out results/peers 2>&1 | tee -i {log:q} >&2"
