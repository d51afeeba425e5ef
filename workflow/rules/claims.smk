# What the data say about the study's claims, the report, and two runs side by side.
from coldprefix.models.convert import converter_key

CLAIMS = str(Path(workflow.basedir) / "claims.yaml")
ORIGINAL = Path(workflow.basedir) / "study" / "original.csv"


rule converter:
    output:
        "results/setup/converter_refusal.json",
    params:
        key=converter_key(),
    message:
        "asking llama.cpp's converter whether it takes OPT"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/try_converter.py --out {output:q}"


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
        page="results/claims.md",
    params:
        claims=sha256_of_file(Path(CLAIMS)),
        original=sha256_of_file(ORIGINAL),
        code=digest("check_claims"),
    message:
        "testing the claims"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/check_claims.py --claims {CLAIMS:q} --trials {input.trials:q} --converter results/setup/converter_refusal.json"
        " --out {output.table:q} --markdown {output.page:q} --provenance {input.provenance:q}"


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
    output:
        "results/report.html",
    params:
        figures=[f"figures/{name}.png" for name in [*FIGURES, "calibration"]],
        code=digest("build_report"),
    message:
        "writing the report"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/build_report.py --trials results/trials.parquet"
        " --summary results/summary.parquet --claims results/claims.parquet --figures {params.figures:q}"
        " --calibration {input.calibration:q} --clock {input.clock:q} --peers {input.peers:q} --self-check {input.self_check:q} --out {output:q} --provenance {input.provenance:q}"


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
        params:
            compare=STUDY.config.compare,
            look=STUDY.config.figures.model_dump_json(),
            code=digest("compare_runs"),
        message:
            "setting two runs side by side"
        shell:
            "{PYTHON:q} {SCRIPTS:q}/compare_runs.py --one {params.compare.one:q} --other {params.compare.other:q}"
            " --names {params.compare.names:q} --vary {params.compare.vary:q} --plan {PLAN:q} --out results/compare"
