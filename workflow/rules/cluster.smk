# More than one machine. What measures is submitted where an executor for a cluster is chosen (profiles/slurm); the rest runs where Snakemake does.


# All that measuring jobs need and do not make; on a cluster it must be there before they are submitted (study/cluster.py).
rule prepared:
    input:
        STUDY.setup_records(),
        "results/preflight/agreed.json",
        rules.claims.input.converter,
    message:
        "everything is prepared"


onsuccess:
    queue.forget(Path())


onerror:
    queue.forget(Path())


workflow.localrules(
    *(rule.name for rule in workflow.rules if rule.name not in MEASURING)
)
