# Loads and validates; no rules here.
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))

from coldprefix.setup import environments
from coldprefix import files
from coldprefix.process import parent
from coldprefix.data import raw as raw_files
from coldprefix.study.config import parse as parse_config
from coldprefix.errors import ColdprefixError
from coldprefix.process.locks import hold_folder
from coldprefix.study.plan import code_hash, environment_of, job_of, resolve_accelerator

HELD, stale = hold_folder(Path())  # until this process ends
if stale:
    environments.say(
        "an earlier run in this folder was killed; its lock has been removed"
    )
os.environ[parent.VARIABLE] = str(os.getpid())  # jobs end with this process


configfile: Path(workflow.basedir) / "config.yaml"


try:
    CONFIG = parse_config(config)
except ColdprefixError as error:
    raise WorkflowError(str(error)) from None

ACCELERATOR = resolve_accelerator(CONFIG.accelerator)
# Shell commands name these three as {PYTHON} and so on: written into the commands or params themselves, a moved checkout
# or a new plotting library would measure every cell again.
SCRIPTS = str(Path(workflow.basedir) / "workflow" / "scripts")
ENVIRONMENTS = str(Path(workflow.basedir) / "envs")
PYTHON = sys.executable
FORMATS = ["pdf", "png", "csv", "txt"]
JOBS = {cell.path: job_of(CONFIG, cell) for cell in CONFIG.all_cells()}
PHASES = list(dict.fromkeys(job.phase for job in JOBS.values()))


def file_of(name, text, decides=None):
    """A file that holds a text. Its name holds the hash of what in it decides (all of it if None), so that it stands for the text where Snakemake compares params; the text
    itself would be a page in each message about a failed command."""
    place = (
        Path(".snakemake/coldprefix")
        / f"{name}-{environments.sha256_of((decides or text).encode())[:16]}.json"
    )
    if not place.exists() or place.read_text() != text:
        files.write_text(place, text)
    return str(place)


def job_param(phase):
    """The job of a cell of this phase, as a file: the only thing that decides whether the cell is stale.

    Snakemake compares only those params with the last run's whose function takes nothing but wildcards: with
    `lambda wildcards, phase=phase: ...` a changed job would go unnoticed.
    """
    return lambda wildcards: job_file(f"{phase}/{wildcards.cell}")


def job_file(cell):
    if cell not in JOBS:
        raise WorkflowError(f"config.yaml has no cell {cell}")
    job = JOBS[cell]
    return file_of(cell, job.model_dump_json(exclude_none=True), job.decisive())


def cells_of(*experiments, phases=PHASES):
    """The cells of these experiments (main, or a sweep's name)."""
    return [
        cell
        for cell, job in JOBS.items()
        if job.sweep in experiments and job.phase in phases
    ]


def braces(cells):
    """Cells for the shell to expand, e.g. phase1/{A512_B256,A384_B384}/{hit,miss}: written out, thousands are more than Linux lets a
    command hold. Their names need no quotes (config.py)."""

    def any_of(names):
        return names[0] if len(names) == 1 else f"{{{','.join(names)}}}"

    groups = {}
    for cell in cells:
        *place, configuration, state = cell.split("/")
        groups.setdefault(("/".join(place), state), []).append(configuration)
    merged = {}
    for (place, state), configurations in groups.items():
        merged.setdefault((place, tuple(configurations)), []).append(state)
    return " ".join(
        f"{place}/{any_of(configurations)}/{any_of(states)}"
        for (place, configurations), states in merged.items()
    )


def raw(cells, name):
    """A raw file of each cell."""
    return [f"results/raw/{cell}/{name}" for cell in cells]


def settings_job(phase):
    """A job, as a file, for reading the settings of a phase: the top-level ones of config.yaml. Its prompts and protocol are always the same, so that changing those of the
    cells does not start the engines again."""
    job = first_job(phase)
    fixed = {
        "trials": 1,
        "burn_in": 0,
        "replicates": 1,
        "settle_ms": 0,
        "stream_tokens": 2,
    }
    fixed |= {"seed": 0, "content": "fresh", "reset": "never", "max_rejected": 0.0}
    fixed |= {"request_form": "tokens"}
    values = job.model_dump()
    values |= {job.engine: getattr(CONFIG, job.engine).model_dump()}
    values |= {
        "sweep": "main",
        "variant": "main",
        "configuration": "A128_B128",
        "state": "hit",
        "lengths": {"A": 128, "B": 128, "Q": 8},
    }
    values |= {"protocol": {**job.protocol.model_dump(), **fixed}}
    return file_of(
        f"preflight/{phase}",
        type(job).model_validate(values).model_dump_json(exclude_none=True),
    )


def model_entry(name):
    """A model's entry in config.yaml, as a file."""
    return file_of(f"models/{name}", CONFIG.models[name].model_dump_json())


def first_job(phase):
    """Any job of a phase: engine and settings are the same for all of them."""
    return next(job for job in JOBS.values() if job.phase == phase)


wildcard_constraints:
    cell=r"([\w.-]+/){1,3}(hit|miss)",
    experiment="|".join(CONFIG.experiments),
    format="pdf|png|csv|txt",
