# A trace of requests, analysed and replayed: snakemake --config trace=FILE -- trace
from coldprefix.traces import shape

if STUDY.config.trace:
    try:
        TRACE = shape.of(STUDY)
    except ColdprefixError as error:
        raise WorkflowError(str(error)) from None

    rule replay_trace:
        input:
            trace=STUDY.config.trace,
            model=TRACE.models,
        output:
            rows="results/trace/replay/{asked}.parquet",
            seal="results/trace/replay/{asked}.parquet.sha256",
            record="results/trace/replay/{asked}.json",
        log:
            "results/logs/trace/{asked}.log",
        wildcard_constraints:
            asked="|".join(map(re.escape, TRACE.phases)) or "none",
        priority: 35
        threads: workflow.cores
        resources:
            machine=100,
        params:
            program=command_of("replay_trace", "--plan", PLAN),
            job=lambda wildcards: STUDY.preflights[wildcards.asked].digest,
            asked=TRACE.replay_arguments,
            code=digest("replay_trace"),
        message:
            "{wildcards.asked}: replaying {input.trace}"
        shell:
            "{params.program} {input.trace:q} --phase {wildcards.asked:q} {params.asked}"
            " --out {output.rows:q} --log {log:q}"

    rule trace:
        input:
            trace=STUDY.config.trace,
            model=TRACE.models,
            replays=expand("results/trace/replay/{phase}.parquet", phase=TRACE.phases),
        output:
            "results/trace/requests.parquet",
            "results/trace/requests.parquet.sha256",
            page="results/trace/trace.md",
            figure=drawn("fig12_trace", "Traces"),
        log:
            "results/logs/trace.log",
        params:
            program=command_of("trace", "--plan", PLAN),
            caption=caption,
            asked=TRACE.arguments,
            look=STUDY.config.figures.model_dump_json(),
            replays=lambda wildcards, input: "--replays" if input.replays else "",
            code=digest("trace"),
        message:
            "analysing {input.trace}"
        shell:
            "{params.program} {input.trace:q} {params.asked} {params.replays} {input.replays:q}"
            " --out results/trace --figure {output.figure:q} 2>&1 | tee -i {log:q} >&2"
