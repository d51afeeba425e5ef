"""Make environments and engine builds exist. Runs under the system's Python: standard library only, except with --engine.

python3 workflow/scripts/set_up.py driver llamacpp vllm-cpu ...        environments by name
python set_up.py --engine llamacpp --accelerator cpu                   an engine's build; runs in the driver's environment
python set_up.py --record FILE ...                                     also write what was made, for the pipeline
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.files import write_json
from coldprefix.process.program import run_main
from coldprefix.setup.building import check_prerequisites
from coldprefix.setup.environments import ensure_environment, environment_key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="environments to make: the folders of envs/")
    parser.add_argument("--engine", help="also make the build of this engine, a folder of src/coldprefix/engines/")
    parser.add_argument("--accelerator", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--record", type=Path, help="write a JSON record here when everything exists")
    parser.add_argument("--no-engines", action="store_true", help="nothing will be built, so no compiler is asked for")
    arguments = parser.parse_args()
    check_prerequisites(need_compiler=not arguments.no_engines and (bool(arguments.engine) or "driver" in arguments.names))
    record: dict[str, object] = {}
    for name in arguments.names:
        ensure_environment(name)
        record[name] = environment_key(name)
    if arguments.engine:
        from coldprefix.engines import contract  # needs the driver's environment

        record["build"] = contract.load(arguments.engine).build(arguments.accelerator)
    if arguments.record:
        write_json(arguments.record, record)


if __name__ == "__main__":
    run_main(main)
