"""Write what says which software this is (`make docs`): the version in CITATION.cff, and codemeta.json made from it.

The version stands in src/coldprefix/__init__.py alone.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import yaml

from coldprefix import __version__
from coldprefix.setup.building import ROOT

CITATION = ROOT / "CITATION.cff"


def citation() -> str:
    """CITATION.cff with the version of the package."""
    text, replaced = re.subn(r"(?m)^version: .*$", f"version: {__version__}", CITATION.read_text())
    assert replaced == 1, "CITATION.cff has one version"
    return text


def codemeta(said: dict[str, Any]) -> dict[str, Any]:
    """CodeMeta 3.0 of what CITATION.cff says, by the crosswalk of https://codemeta.github.io/crosswalk/."""
    return {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": said["title"],
        "description": said["abstract"],
        "version": said["version"],
        "license": f"https://spdx.org/licenses/{said['license']}",
        "author": [{"@type": "Organization", "name": author["name"]} for author in said["authors"]],
        "keywords": said["keywords"],
        "programmingLanguage": ["Python", "Snakemake"],
        "operatingSystem": "Linux",
        **{theirs: said[ours] for ours, theirs in (("doi", "identifier"), ("repository-code", "codeRepository")) if ours in said},
    }


def pages() -> dict[Path, str]:
    """Every file by its path."""
    said = yaml.safe_load(citation())
    return {
        CITATION: citation(),
        ROOT / "codemeta.json": json.dumps(codemeta(said | {"version": str(said["version"])}), indent=1, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
