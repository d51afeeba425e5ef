"""Where in a prompt the parts that change should stand: a table, a page and a figure.

python advise.py --plan PLAN --prompt prompt.yaml --trials FILE --agreed results/preflight/agreed.json --out results/layout --figure figures/layout.{pdf,png,csv,txt}
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.advice import figure, table
from coldprefix.data import tables
from coldprefix.data.parquet import read_tables, write_table
from coldprefix.data.raw import read_records
from coldprefix.figures import captions, style
from coldprefix.files import read_json, write_text
from coldprefix.process.program import run_main
from coldprefix.study.config import Figures
from coldprefix.study.prompt_file import read_prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes: how figures look")
    parser.add_argument("--prompt", type=Path, required=True)
    parser.add_argument("--trials", type=Path, required=True, help="of the sweep layout")
    parser.add_argument("--agreed", type=Path, required=True, help="settings in force by phase")
    parser.add_argument("--provenance", type=Path, required=True, help="of the sweep layout: machine and weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    prompt = read_prompt(arguments.prompt)
    advice = table.advise(prompt, read_tables([arguments.trials], tables.TRIALS), read_json(arguments.agreed))
    write_table(advice, arguments.out / "advice.parquet")
    weights, machine = captions.where(read_records(arguments.provenance))
    scope = f"{weights}; {machine}"
    text = table.page(advice, prompt, scope)
    write_text(arguments.out / "advice.md", text)
    settings = Figures.model_validate(read_json(arguments.plan)["figures"])
    style.save(figure.draw(advice, settings, scope), arguments.figure, settings)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
