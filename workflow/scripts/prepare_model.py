"""Make a model exist, from the Hub or generated; with --gguf also as GGUF F16. Instant when it is there already.

    python prepare_model.py NAME --entry JSON --models models [--gguf] --downloads FOLDER --record FILE

The record says what was made. FOLDER keeps the checksums of first downloads, which later ones must repeat.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pydantic import TypeAdapter

from coldprefix.models.prepare import prepare as models
from coldprefix.study.config import HubModel, Model
from coldprefix.errors import run_main
from coldprefix.files import read_json, text_of, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--entry", required=True, help="the model's entry in config.yaml as JSON, or a file that holds it")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--gguf", action="store_true")
    parser.add_argument("--downloads", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    arguments = parser.parse_args()
    model = TypeAdapter[Model](Model).validate_json(text_of(arguments.entry))
    known = arguments.downloads / f"{arguments.name}.json"
    earlier = read_json(known) if known.exists() else None
    record = models.ensure_model(arguments.name, model, arguments.models, earlier)
    if isinstance(model, HubModel):
        if earlier and earlier.get("origin") == record.get("origin"):  # what was recorded first stays
            write_json(known, record | {key: record[key] | earlier[key] for key in ("files", "pickles")})
        else:
            write_json(known, record)
    if arguments.gguf:
        record = models.ensure_gguf(arguments.name, model, arguments.models)
    write_json(arguments.record, record)


if __name__ == "__main__":
    run_main(main)
