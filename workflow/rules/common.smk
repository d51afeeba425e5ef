# Loads and validates the configuration, and plans; no rules here.
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of_file
from coldprefix.process import locks, program, queue
from coldprefix.setup import refusals
from coldprefix.setup.building import say
from coldprefix.study import checks, cluster, estimate
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


configfile: Path(workflow.basedir) / "config.yaml"


try:
    STUDY = plan_of(checks.parse(config))
    refusals.check(STUDY.preflights.values())
except ColdprefixError as error:
    raise WorkflowError(str(error)) from None

if STUDY.config.estimate:
    print(estimate.text(STUDY, estimate.read_earlier(Path("results/raw"))), flush=True)
    sys.exit(0)

logger.addHandler(TimeLeft(STUDY.phases))

# Shell commands name these as {PYTHON} and so on: written into the commands or params themselves, a moved checkout or a new plotting
# library would measure every cell again.
SCRIPTS = str(Path(workflow.basedir) / "workflow" / "scripts")
PYTHON = sys.executable
PLAN = "results/plan.json"  # what the programs read
FORMATS = ["pdf", "png", "csv", "txt"]
FIGURES = STUDY.figures()


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
