"""Write the table of THIRD_PARTY.md: under which licence what envs/ locks says that it is (`make licences`).

Read from the metadata of what is installed, for each environment that is there. Of a package that is in none of them the table keeps what
it said before, or says that nothing is known.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.setup.building import ROOT
from coldprefix.setup.environments import bootstrap

PAGE = ROOT / "THIRD_PARTY.md"
HEAD = "| package | licence, as it says of itself | environments |\n| --- | --- | --- |\n"
UNKNOWN = "not known: installed in no environment where this table was made"


def canonical(name: str) -> str:
    """A package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, list[str]]:
    """The environments that lock a package, by its name; llama-cpp-python is built from its source (envs/llamacpp/sdist.txt)."""
    found: dict[str, list[str]] = {}
    for file in sorted([*(ROOT / "envs").glob("*/requirements.txt"), *(ROOT / "envs").glob("*/sdist.txt")]):
        for name in re.findall(r"(?m)^([A-Za-z0-9][\w.-]*)==", file.read_text()):
            found.setdefault(canonical(name), []).append(file.parent.name)
    return found


def licence_of(package: Distribution) -> str:
    """License-Expression (PEP 639), else the classifiers, else the first line of License."""
    told = package.metadata
    if "License-Expression" in told:
        return str(told["License-Expression"])
    named = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier") or [] if line.startswith("License :: ")]
    free = (told.get_all("License") or [""])[0].strip().splitlines()
    return " or ".join(n for n in named if n != "OSI Approved") or (free[0][:80] if free else "") or "it says none"


def known() -> dict[str, str]:
    """Licences by package: those of the table as it is, replaced by what is installed."""
    found = dict(re.findall(r"(?m)^\| ([a-z0-9-]+) \| (.*?) \| [\w, -]+ \|$", PAGE.read_text().partition(HEAD)[2]))
    environments = {folder.parent.name: folder for folder in (ROOT / "envs").glob("*/.venv")} | {"bootstrap": bootstrap()}
    where = locked()
    for environment, folder in environments.items():
        for package in distributions(path=[str(path) for path in folder.glob("lib/python*/site-packages")]):
            name = canonical(package.metadata["Name"] or "")
            if environment in where.get(name, []):
                found[name] = licence_of(package).replace("|", "/")
    return found


def page() -> str:
    """THIRD_PARTY.md with the table written anew."""
    licences = known()
    rows = [f"| {name} | {licences.get(name, UNKNOWN)} | {', '.join(where)} |" for name, where in sorted(locked().items())]
    return PAGE.read_text().partition(HEAD)[0] + HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
