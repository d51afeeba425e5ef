# What the data say about the study's claims, the report, and two runs side by side.
from coldprefix.models.convert import converter_key

CLAIMS = ROOT / "claims.yaml"
ORIGINAL = ROOT / "study" / "original.csv"


rule converter:
    output:
        "results/setup/converter_refusal.json",
    log:
        "results/logs/converter.log",
    params:
        program=command_of("try_converter"),
        key=converter_key(),
    message:
        "asking llama.cpp's converter whether it takes OPT"
    shell:
        "{params.program} --out {output:q} 2>&1 | tee -i {log:q} >&2"


rule claims:
    input:
        trials="results/trials.parquet",
        provenance="results/provenance.json",
        converter=(
            rules.converter.output
            if any(job.engine == "llamacpp" for job in STUDY.preflights.values())
            else []
        ),
    output:
        table="results/claims.parquet",
        seal="results/claims.parquet.sha256",
        page=report(
            "results/claims.md", caption="../report/claims.rst", category="Claims"
        ),
    log:
        "results/logs/claims.log",
    params:
        program=command_of("check_claims", "--claims", str(CLAIMS)),
        claims=sha256_of_file(CLAIMS),
        original=sha256_of_file(ORIGINAL),
        code=digest("check_claims"),
    message:
        "testing the claims"
    shell:
        "{params.program} --trials {input.trials:q} --converter results/setup/converter_refusal.json"
        " --out {output.table:q} --markdown {output.page:q} --provenance {input.provenance:q} 2>&1 | tee -i {log:q} >&2"


rule report:
    input:
        rules.aggregate.output,
        rules.claims.output,
        expand(
            "figures/{name}.{format}", name=[*FIGURES, "calibration"], format=FORMATS
        ),
        calibration=rules.calibration.output.text,
        clock=rules.calibration.output.summary,
        peers=rules.peers.output.text,
        self_check="results/self_check.parquet",
        provenance="results/provenance.json",
        # table, seal, page and figure, where a prompt to advise on is given
        advice=rules.layout.output if STUDY.config.layout else [],
    output:
        report(
            "results/report.html",
            caption="../report/report.rst",
            category="Everything in one file",
        ),
    log:
        "results/logs/report.log",
    params:
        program=command_of("build_report"),
        figures=[
            f"figures/{name}.png"
            for name in [
                *FIGURES,
                "calibration",
                *(["layout"] if STUDY.config.layout else []),
            ]
        ],
        advice=("--advice results/layout/advice.parquet" if STUDY.config.layout else ""),
        code=digest("build_report"),
    message:
        "writing the report"
    shell:
        "{params.program} --trials results/trials.parquet"
        " --summary results/summary.parquet --claims results/claims.parquet --figures {params.figures:q}"
        " --calibration {input.calibration:q} --clock {input.clock:q} --peers {input.peers:q} --self-check {input.self_check:q} --out {output:q} --provenance {input.provenance:q}"
        " {params.advice} 2>&1 | tee -i {log:q} >&2"


if STUDY.config.compare is not None:

    rule compare:
        input:
            [
                str(file)
                for folder in (STUDY.config.compare.one, STUDY.config.compare.other)
                for file in sorted(Path(folder).rglob("requests.parquet"))
            ],
        output:
            expand(
                "results/compare/comparison.{format}",
                format=["parquet", "parquet.sha256", "csv", "txt", "pdf", "png"],
            ),
        log:
            "results/logs/compare.log",
        params:
            program=command_of("compare_runs", "--plan", PLAN),
            compare=STUDY.config.compare,
            look=STUDY.config.figures.model_dump_json(),
            code=digest("compare_runs"),
        message:
            "setting two runs side by side"
        shell:
            "{params.program} --one {params.compare.one:q} --other {params.compare.other:q}"
            " --names {params.compare.names:q} --vary {params.compare.vary:q} --out results/compare"
            " 2>&1 | tee -i {log:q} >&2"
