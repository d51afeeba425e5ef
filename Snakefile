# coldprefix: what a cold prefix costs. `snakemake` draws every figure; `snakemake -n` says what is stale.
from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/engines.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/peers.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/layout.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/trace.smk"
include: "workflow/rules/load.smk"
include: "workflow/rules/cluster.smk"  # last: it looks at all rules


rule all:
    default_target: True
    input:
        # Raw data by name, so that a cell that was deleted is measured again although the figures still stand.
        rules.aggregate.input.requests,
        rules.aggregate.input.provenance,
        rules.aggregate.output,
        expand("figures/{name}.{format}", name=FIGURES, format=FORMATS),
        rules.calibration.output,
        rules.calibration_figure.output,
        rules.peers.output,
        rules.claims.output,
        rules.report.output,
    message:
        "everything is up to date"
