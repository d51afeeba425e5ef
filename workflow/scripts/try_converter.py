"""Ask llama.cpp's converter to convert a small OPT model and record what it answers: the evidence for claim C1.

python try_converter.py --out results/setup/converter_refusal.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.files import write_json
from coldprefix.models.convert import CONVERTING, converter
from coldprefix.models.prepare import ensure_model
from coldprefix.models.standin import StandinModel
from coldprefix.process import supervise
from coldprefix.process.program import run_main

ARCHITECTURE: Literal["OPTForCausalLM"] = "OPTForCausalLM"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    small = StandinModel(source="standin", architecture=ARCHITECTURE, layers=1, width=64, heads=2, positions=128, vocabulary=50272, seed=1)
    with tempfile.TemporaryDirectory(prefix="coldprefix-") as folder:
        ensure_model("opt", small, Path(folder))
        command = [*converter(), Path(folder) / "opt", "--outfile", Path(folder) / "opt.gguf"]
        done = supervise.run(command, env=CONVERTING)
        written = (Path(folder) / "opt.gguf").exists()
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    record = {"architecture": ARCHITECTURE, "returncode": done.returncode, "gguf_written": written}
    record["message"] = next((line for line in lines if "not supported" in line), lines[-1] if lines else "")
    write_json(arguments.out, record)


if __name__ == "__main__":
    run_main(main)
