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

from coldprefix.setup import environments
from coldprefix.models.prepare import prepare as models
from coldprefix.process import supervise
from coldprefix.study.config import StandinModel
from coldprefix.errors import run_main
from coldprefix.files import write_json

ARCHITECTURE: Literal["OPTForCausalLM"] = "OPTForCausalLM"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    small = StandinModel(source="standin", architecture=ARCHITECTURE, layers=1, width=64, heads=2, positions=128, vocabulary=50272, seed=1)
    python = environments.ensure_environment("convert") / "bin" / "python"
    converter = environments.ensure_llamacpp_source() / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    with tempfile.TemporaryDirectory(prefix="coldprefix-") as folder:
        models.ensure_model("opt", small, Path(folder))
        command: list[str | Path] = [python, converter, Path(folder) / "opt", "--outtype", "f16", "--outfile", Path(folder) / "opt.gguf"]
        done = supervise.run(command, env=models.CONVERTING)
        written = (Path(folder) / "opt.gguf").exists()
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    record = {"architecture": ARCHITECTURE, "returncode": done.returncode, "gguf_written": written}
    record["message"] = next((line for line in lines if "not supported" in line), lines[-1] if lines else "")
    write_json(arguments.out, record)


if __name__ == "__main__":
    run_main(main)
