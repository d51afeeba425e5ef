# What the data say about the study's claims, the report, and two runs side by side.
CLAIMS = str(Path(workflow.basedir) / "claims.yaml")


rule converter:
    output:
        "results/setup/converter_refusal.json",
    params:
        source=environments.llamacpp_source_key(),
        key=environments.environment_key("convert"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/try_converter.py --out {output:q}"


rule claims:
    input:
        trials="results/trials.parquet",
        provenance="results/provenance.json",
        converter=(
            rules.converter.output
            if "llamacpp" in {j.engine for j in JOBS.values()}
            else []
        ),
    output:
        table="results/claims.parquet",
        seal="results/claims.parquet.sha256",
        page="results/claims.md",
    params:
        claims=environments.sha256_of(Path(CLAIMS).read_bytes()),
        code=code_hash("claims.py", "statistics.py", "tables.py"),
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
        peers=rules.peers.output.text,
        provenance="results/provenance.json",
    output:
        "results/report.html",
    params:
        figures=[f"figures/{name}.png" for name in [*FIGURES, "calibration"]],
        code=code_hash(
            "report.py",
            "report.html.jinja",
            "report.js",
            "caveats.py",
            "costs.py",
            "tables.py",
        ),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/build_report.py --trials results/trials.parquet"
        " --summary results/summary.parquet --claims results/claims.parquet --figures {params.figures:q}"
        " --calibration {input.calibration:q} --peers {input.peers:q} --out {output:q} --provenance {input.provenance:q}"


if CONFIG.compare is not None:

    rule compare:
        input:
            [
                str(file)
                for folder in (CONFIG.compare.one, CONFIG.compare.other)
                for file in raw_files.rows_below(Path(folder))
            ],
        output:
            expand(
                "results/compare/comparison.{format}",
                format=["parquet", "parquet.sha256", "csv", "txt", "pdf", "png"],
            ),
        params:
            compare=CONFIG.compare,
            names=CONFIG.compare.names,
            vary=CONFIG.compare.vary,
            style=CONFIG.figures.model_dump_json(),
            code=code_hash("compare.py", "figures/comparison.py", "figures/style.py"),
        shell:
            "{PYTHON:q} {SCRIPTS:q}/compare_runs.py --one {params.compare.one:q} --other {params.compare.other:q}"
            " --names {params.names:q} --vary {params.vary:q} --style {params.style:q} --out results/compare"
