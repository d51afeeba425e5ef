# Loads and validates the configuration, and plans; no rules here.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

# Not workflow.basedir: where another workflow uses this one as a module, that is the other's.
ROOT = Path(workflow.current_basedir).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of_file
from coldprefix.process import locks, program, queue
from coldprefix.setup import refusals
from coldprefix.setup.building import say
from coldprefix.study import checks, cluster, estimate
from coldprefix.study.begin import Begin
from coldprefix.study.code import digest
from coldprefix.study.machine import resolve_threads
from coldprefix.study.plan import plan_of
from coldprefix.study.time_left import TimeLeft

try:
    HELD = locks.hold_folder(
        Path(), workflow.is_main_process
    )  # until this process ends
except ColdprefixError as error:
    raise WorkflowError(str(error)) from None
os.environ[program.VARIABLE] = str(os.getpid())  # jobs end with this process


configfile: ROOT / "config.yaml"


# A module is given the values of its importer alone; alone, this changes nothing.
VALUES = load_configfile(ROOT / "config.yaml")
update_config(VALUES, config)

try:
    STUDY = plan_of(checks.parse(VALUES))
    refusals.check(STUDY.preflights.values())
except ColdprefixError as error:
    raise WorkflowError(str(error)) from None

if STUDY.config.estimate:
    print(estimate.text(STUDY, estimate.read_earlier(Path("results/raw"))), flush=True)
    sys.exit(0)

logger.addHandler(TimeLeft(STUDY.phases))

PLAN = "results/plan.json"  # what the programs read
FORMATS = ["pdf", "png", "csv", "txt"]
FIGURES = STUDY.figures()
MEASURING = [*STUDY.phases, "calibration", "llama_bench"]


onstart:
    check_cluster()
    # Not earlier: a dry run writes nothing.
    STUDY.write(Path(PLAN))
    # Snakemake's limit of 100 jobs per second, which no option turns off, wakes it once a second more for every finished job: after
    # 300 jobs it used 30 % of a core beside the running one (docs/upstream/snakemake-timer.md). One cell at a time needs no limit.
    try:
        workflow.scheduler.job_rate_limiter  # raises under another name; assigning alone would not
        workflow.scheduler.job_rate_limiter = None
    except AttributeError:
        say(
            "this Snakemake keeps its limit of jobs per second: see docs/upstream/snakemake-timer.md"
        )


# Snakemake calls the onstart of the main Snakefile only.
if Path(workflow.main_snakefile) != ROOT / "Snakefile":
    logger.addHandler(Begin(lambda: STUDY.write(Path(PLAN))))


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


def command_of(program, *arguments):
    """The command that starts a program of workflow/scripts, as a function of more than wildcards: Snakemake does not compare the value of
    such a param with the last run's, so that a moved checkout or another Python measures nothing again.
    """
    script = ROOT / "workflow" / "scripts" / f"{program}.py"
    command = shlex.join([sys.executable, str(script), *arguments])
    return lambda wildcards, output: command


def caption(wildcards, output):
    """The caption that was drawn with a figure, for `snakemake --report`; empty before."""
    file = next(Path(name) for name in output if name.endswith(".txt"))
    return re.sub(r"([*_`|\\])", r"\\\1", file.read_text()) if file.exists() else ""


def drawn(name, category):
    """The files of a figure, of which `snakemake --report` shows the PNG."""
    shown = dict(
        caption="../report/figure.rst", category=category, labels={"figure": name}
    )
    files = expand(f"figures/{name}.{{format}}", format=FORMATS)
    return [report(f, **shown) if f.endswith(".png") else f for f in files]


def cell_of(phase):
    """The name of a cell of this phase; not {rule}, which another workflow may call as it likes. Not compared, as above."""
    return lambda wildcards, output: f"{phase}/{wildcards.cell}"


def measured_by(phase):
    """The digest of the job of a cell of this phase."""
    return lambda wildcards: STUDY.job(f"{phase}/{wildcards.cell}").digest


def rank_of(phase):
    """The priority of a cell of this phase."""
    return lambda wildcards: STUDY.rank(f"{phase}/{wildcards.cell}")


def raw(cells, name):
    """A raw file of each cell."""
    return [f"results/raw/{cell}/{name}" for cell in cells]


wildcard_constraints:
    cell=rf"([\w.-]+/){{1,3}}({'|'.join(map(re.escape, STUDY.states))})",
    experiment="|".join(STUDY.config.experiments),
    format="pdf|png|csv|txt",
