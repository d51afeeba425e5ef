"""Ask whether what the environments lock has known vulnerabilities (`make audit`).

    python audit.py [--if-possible] [LOCK ...]

Exit code 0: all packages were looked up and none has one. 1: some have, or the audit could not be made; with --if-possible the latter is
said and is no failure. A package that the service does not know is not audited, which pip-audit alone takes for a success.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.errors import ColdprefixError
from coldprefix.process import supervise
from coldprefix.process.program import run_main
from coldprefix.setup.building import ROOT, say, without_tokens
from coldprefix.setup.environments import ensure_environment

TIMEOUT_S = 600.0


def audited(lock: Path) -> list[dict[str, Any]]:
    """pip-audit's list of packages for a lock file: name, version, vulns, or skip_reason.

    Raises:
        ColdprefixError: it gave no list, as without a network.
    """
    program = ensure_environment("audit") / "bin" / "pip-audit"
    command: list[str | Path] = [
        program,
        "--require-hashes",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "--requirement",
        lock,
    ]
    try:
        done = supervise.run(command, TIMEOUT_S, env=without_tokens())
    except subprocess.TimeoutExpired:
        raise ColdprefixError(f"pip-audit had not looked up {lock} after {TIMEOUT_S:.0f} s") from None
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        return found
    except (ValueError, KeyError, TypeError):
        end = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise ColdprefixError(f"pip-audit could not look up {lock}: {end[:300]}. It needs the network.") from None


def verdict(name: str, packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """(a line for each vulnerability, number of packages that could not be looked up)

    Raises:
        ColdprefixError: none of them could be: that is no audit.
    """
    skipped = sum("skip_reason" in package for package in packages)
    if packages and skipped == len(packages):
        raise ColdprefixError(f"none of the packages of {name} is known to the service that pip-audit asks; is it reachable from here?")
    lines = [
        f"{name}: {package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no version'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    return lines, skipped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--if-possible", action="store_true", help="an audit that cannot be made is no failure")
    parser.add_argument("locks", nargs="*", type=Path, help="lock files; all of envs/ if none")
    arguments = parser.parse_args()
    locks = arguments.locks or sorted((ROOT / "envs").glob("*/requirements.txt"))
    vulnerable: list[str] = []
    failed: list[str] = []
    for lock in locks:
        try:
            packages = audited(lock)
            lines, unknown = verdict(lock.parent.name, packages)
        except ColdprefixError as error:
            failed.append(str(error))
            continue
        vulnerable += lines
        say(f"{lock.parent.name}: {len(packages)} packages, {unknown} could not be looked up, {len(lines)} vulnerabilities")
    for message in failed:
        say(f"not audited: {message}")
    if vulnerable:
        raise ColdprefixError(
            "known vulnerabilities:\n  " + "\n  ".join(vulnerable) + "\nRaise the versions in envs/*/requirements.in, then make lock"
        )
    if failed and not arguments.if_possible:
        raise ColdprefixError(f"{len(failed)} of {len(locks)} lock files could not be audited; run it where the network can be reached")
    return 0


if __name__ == "__main__":
    run_main(main)
