"""What a cache reuses of a trace of requests, and where its prompts break: a table, a page and a figure. No engine is needed.

    python trace.py TRACE --out results/trace [--model gpt2-standin | --tokenizer FOLDER] [--replays results/trace/replay/phase3a.parquet ...]

Needs a model's tokenizer for chats and texts only. With replays (replay_trace.py) it says what the breaks have cost.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data.parquet import read_table, write_table
from coldprefix.figures import style
from coldprefix.files import read_json, write_text
from coldprefix.process.program import run_main
from coldprefix.study.config import Figures
from coldprefix.traces import figure
from coldprefix.traces.analyse import Options, analyse
from coldprefix.traces.cost import replayed
from coldprefix.traces.page import page
from coldprefix.traces.tokens import Tokenizer, tokenizer_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bad", choices=["refuse", "skip"], default="refuse", help="what to do with lines that cannot be used")
    parser.add_argument("--block", type=int, help="tokens of a block of the caches")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="of caches, in tokens")
    parser.add_argument("--no-text", action="store_true", help="no text of the trace in any output")
    parser.add_argument("--context", type=int, help="longest prompt and one token of an answer, in tokens")
    parser.add_argument("--model", help="whose tokenizer is taken, from the folder of models")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--tokenizer", type=Path, help="a folder with tokenizer.json, in the place of a model")
    parser.add_argument("--replays", type=Path, nargs="*", default=[])
    parser.add_argument(
        "--plan", type=Path, help="results/plan.json, which snakemake writes: how figures look; without it no figure is drawn"
    )
    parser.add_argument("--figure", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()

    def tokenizer() -> Tokenizer:
        return Tokenizer(arguments.tokenizer or tokenizer_folder(arguments.models, arguments.model))

    given = arguments.tokenizer or arguments.model
    options = Options(arguments.bad, arguments.context, None, arguments.block, tuple(arguments.sizes), show=not arguments.no_text)
    analysis = analyse(arguments.trace, options, tokenizer if given else None)
    replays = [replayed(read_table(path), read_json(path.with_suffix(".json"))) for path in arguments.replays]
    write_table(analysis.rows, arguments.out / "requests.parquet")
    text = page(arguments.trace, analysis, replays)
    write_text(arguments.out / "trace.md", text)
    if arguments.plan:
        settings = Figures.model_validate(read_json(arguments.plan)["figures"])
        style.save(figure.draw(analysis, replays, settings), arguments.figure, settings)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
