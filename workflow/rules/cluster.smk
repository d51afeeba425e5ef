# More than one machine. What measures is submitted where an executor for a cluster is chosen (profiles/slurm); the rest runs where Snakemake does.
MEASURING = [*STUDY.phases, "calibration", "llama_bench"]


# All that measuring jobs need and do not make; on a cluster it must be there before they are submitted (study/cluster.py).
rule prepared:
    input:
        STUDY.setup_records(),
        "results/preflight/agreed.json",
        rules.claims.input.converter,
    message:
        "everything is prepared"


def check_cluster():
    """Under a cluster's executor: refuse what cannot end well, and note under which name the jobs are submitted."""
    if workflow.local_exec or workflow.dryrun or not workflow.is_main_process:
        return
    due = list(workflow.persistence.dag.needrun_jobs())
    extras = {
        str(job.resources.get("slurm_extra", ""))
        for job in due
        if job.rule.name in MEASURING
    }
    try:
        cluster.check_submission(
            STUDY.config,
            {job.rule.name for job in due},
            MEASURING,
            extras,
            [str(file) for file in workflow.overwrite_configfiles or []],
            list(workflow.config_settings.config_args or []),
        )
    except ColdprefixError as error:
        raise WorkflowError(str(error)) from None
    # Of SLURM's executor; without a name, nobody can ask after the jobs.
    queue.note(Path(), getattr(workflow.scheduler._executor, "run_uuid", ""))


onsuccess:
    queue.forget(Path())


onerror:
    queue.forget(Path())


workflow.localrules(
    *(rule.name for rule in workflow.rules if rule.name not in MEASURING)
)
