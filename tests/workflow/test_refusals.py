"""An engine that does not compute its model is found out once, by the preflight, and the next run says so before it starts anything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from coldprefix.setup import building

pytestmark = pytest.mark.engine
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_refusal_is_found_once_and_kept(spare: Path, in_spare: Run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for part in building.CACHE.iterdir():
        if part.name != "refusals":
            (cache / part.name).symlink_to(part)
    told = {
        "prompt": [5000, 6000, 7000],
        "top": {"1": -0.1, "2": -9.0},
        "other_top": {"1": -0.2, "2": -9.1},
        "transformers": "0",
        "dtype": "f",
    }
    (spare / "models/gpt2-tiny/reference.json").write_text(json.dumps(told))  # of a model that this one is not
    record = spare / "results/preflight/phase3b.json"
    record.unlink()
    asked = "results/preflight/phase3b.json", "--config", "phases=phase3b", "experiments=main"
    first = in_spare(*asked, COLDPREFIX_CACHE=str(cache))
    assert first.returncode != 0 and "the engine does not compute the model" in first.stdout + first.stderr
    (kept,) = (cache / "refusals").glob("*.json")
    assert json.loads(kept.read_text())["model"] == "gpt2-tiny" and not record.exists()
    second = in_spare(*asked, "-n", COLDPREFIX_CACHE=str(cache))
    output = second.stdout + second.stderr
    assert second.returncode != 0 and "an earlier run has found that" in output and "phase3b cannot run gpt2-tiny" in output
    assert str(kept) in output and "Traceback" not in output
