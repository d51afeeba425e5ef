"""Make a model exist, from the Hub or generated; with --gguf also as GGUF F16. Instant when it is there already.

    python prepare_model.py NAME --entry JSON --models models [--gguf] --downloads FOLDER --record FILE

The record says what was made. FOLDER keeps the checksums of first downloads, which later ones must repeat.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pydantic import TypeAdapter

from coldprefix import models
from coldprefix.config import HubModel, Model
from coldprefix.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--entry", required=True, help="the model's entry in config.yaml, as JSON")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--gguf", action="store_true")
    parser.add_argument("--downloads", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    arguments = parser.parse_args()
    model = TypeAdapter[Model](Model).validate_json(arguments.entry)
    known = arguments.downloads / f"{arguments.name}.json"
    earlier = json.loads(known.read_text()) if known.exists() else None
    record = models.ensure_model(arguments.name, model, arguments.models, earlier)
    if isinstance(model, HubModel):
        if earlier and earlier.get("origin") == record.get("origin"):  # what was recorded first stays
            write(known, record | {key: record[key] | earlier[key] for key in ("files", "pickles")})
        else:
            write(known, record)
    if arguments.gguf:
        record = models.ensure_gguf(arguments.name, model, arguments.models)
    write(arguments.record, record)


def write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    run_main(main)
