"""The reference pages say what the code says."""

from __future__ import annotations

import runpy

import pytest
from conftest import ROOT

PAGES = runpy.run_path(str(ROOT / "workflow" / "scripts" / "write_reference.py"))["pages"]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_up_to_date(path: object) -> None:
    assert path.read_text() == PAGES[path], "run: make docs"  # type: ignore[attr-defined]
