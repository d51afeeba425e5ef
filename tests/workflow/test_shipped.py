"""What Snakemake made of a run, and what `make render` makes of its raw data without Snakemake, are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldprefix.artifact.reference import keep
from coldprefix.artifact.render import render, text

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_a_run_is_rendered_as_snakemake_made_it(finished: Path, tmp_path: Path) -> None:
    reference = keep(finished, tmp_path / "reference")
    found = render(reference, tmp_path / "again")
    assert found.passed and found.equal > 20, text(reference, found)
