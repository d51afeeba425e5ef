"""The audit of what is locked: what could not be looked up is not taken for clean."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from coldprefix.errors import ColdprefixError

SCRIPT = str(ROOT / "workflow/scripts/audit.py")
verdict = runpy.run_path(SCRIPT)["verdict"]

# As pip-audit 2.10 writes it (README, "--format json").
PACKAGES = [
    {"name": "clean", "version": "1.0", "vulns": []},
    {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (1.0)"},
    {"name": "flask", "version": "0.5", "vulns": [{"id": "PYSEC-2019-179", "fix_versions": ["1.0"], "aliases": [], "description": "x"}]},
]


def test_vulnerabilities_are_named_and_what_was_not_looked_up_is_counted() -> None:
    assert verdict("driver", PACKAGES) == (["driver: flask 0.5: PYSEC-2019-179, fixed in 1.0"], 1)
    assert verdict("driver", PACKAGES[:1]) == ([], 0)


def test_an_audit_that_knew_nothing_is_none() -> None:
    with pytest.raises(ColdprefixError, match="none of the packages of driver is known"):
        verdict("driver", PACKAGES[1:2] * 3)


@pytest.mark.engine
def test_a_service_that_does_not_answer_in_time_is_no_traceback() -> None:
    program = runpy.run_path(SCRIPT)["audited"]
    program.__globals__["TIMEOUT_S"] = 0.01
    with pytest.raises(ColdprefixError, match=r"pip-audit had not looked up .* after 0 s"):
        program(ROOT / "envs/bootstrap/requirements.txt")


@pytest.mark.engine
@pytest.mark.parametrize(("options", "code"), [([], 1), (["--if-possible"], 0)])
def test_without_a_network_it_says_so(tmp_path: Path, options: list[str], code: int) -> None:
    with_no_way_out = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    subprocess.run([sys.executable, str(ROOT / "workflow/scripts/set_up.py"), "audit"], check=True, capture_output=True)
    lock = str(ROOT / "envs/bootstrap/requirements.txt")
    done = subprocess.run([sys.executable, SCRIPT, *options, lock], capture_output=True, text=True, env=with_no_way_out)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert "not audited: " in done.stderr and ("look up" in done.stderr or "reachable" in done.stderr)
