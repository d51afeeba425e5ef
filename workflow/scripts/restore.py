"""Before a measurement: see that what it needs is still there, and make again what is not.

    python restore.py --job JOB --entry MODEL_ENTRY --models models --downloads FOLDER

Environments, builds and models are not inputs of measuring jobs: deleting one of them must not measure every cell again.
So each job looks here first, which takes no time when nothing is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pydantic import TypeAdapter

from coldprefix.setup import environments
from coldprefix.models.prepare import prepare as models
from coldprefix.study.config import Model
from coldprefix.errors import run_main
from coldprefix.files import read_json, text_of
from coldprefix.study.plan import Job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="the job (coldprefix.job.Job) as JSON, or a file that holds it")
    parser.add_argument("--entry", required=True, help="the model's entry in config.yaml, likewise")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--downloads", type=Path, required=True)
    arguments = parser.parse_args()
    job = Job.model_validate_json(text_of(arguments.job))
    model = TypeAdapter[Model](Model).validate_json(text_of(arguments.entry))
    environments.ensure_environment(job.environment)
    known = arguments.downloads / f"{job.model.name}.json"
    models.ensure_model(job.model.name, model, arguments.models, read_json(known) if known.exists() else None)
    if job.engine == "llamacpp":
        environments.ensure_llamacpp(job.accelerator)
        models.ensure_gguf(job.model.name, model, arguments.models)


if __name__ == "__main__":
    run_main(main)
