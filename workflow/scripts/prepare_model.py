"""Make a model exist: download, generate or find it, and convert and quantise it for an engine that takes GGUF.

python prepare_model.py NAME --plan PLAN [--weights gguf] --record OUT.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.files import read_json, write_json
from coldprefix.models.prepare import ensure_gguf, ensure_model
from coldprefix.process.program import run_main
from coldprefix.study import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key of `models` in config.yaml")
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--weights", choices=["safetensors", "gguf"], default="safetensors")
    parser.add_argument("--accelerator", choices=["cpu", "cuda"], default="cpu", help="whose build of llama.cpp quantises")
    parser.add_argument("--downloads", type=Path, default=Path("results/setup/downloads"), help="what earlier downloads were")
    parser.add_argument("--record", type=Path, required=True)
    arguments = parser.parse_args()
    entry = read_json(arguments.plan)["models"][arguments.name]
    model = registry.source(entry["source"]).model_validate(entry)
    known = arguments.downloads / f"{arguments.name}.json"
    earlier = read_json(known) if known.exists() else None
    record = ensure_model(arguments.name, model, arguments.models, earlier)
    if model.origin:
        if earlier and earlier.get("origin") == record.get("origin"):  # what was recorded first stays
            write_json(known, record | {key: record[key] | earlier[key] for key in ("files", "pickles")})
        else:
            write_json(known, record)
    if arguments.weights == "gguf":
        record = ensure_gguf(arguments.name, model, arguments.models, arguments.accelerator)
    write_json(arguments.record, record)


if __name__ == "__main__":
    run_main(main)
