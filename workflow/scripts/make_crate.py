"""Describe a finished run as a Workflow Run RO-Crate: writes ro-crate-metadata.json into its results folder (docs/publishing.md).

    envs/publish/.venv/bin/python workflow/scripts/make_crate.py results
    envs/publish/.venv/bin/python workflow/scripts/make_crate.py results --check      as above, then asks roc-validator

Runs in the environment `publish` (`python3 workflow/scripts/set_up.py publish`). Reads the provenance of the cells; measures and changes
nothing. A crate has to hold its workflow: the Snakefile and config.yaml of this checkout are copied to results/crate/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix import __version__
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json, sha256_of_file
from coldprefix.process.program import run_main
from coldprefix.setup.building import ROOT, say

METADATA = "ro-crate-metadata.json"
# What the crate conforms to, as https://www.researchobject.org/workflow-run-crate/profiles/ asks of the root and of the metadata file.
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # of the context of https://w3id.org/ro/terms/workflow-run
SHOWN = {  # what a run makes beside its raw rows
    "report.html": "claims, figures, settings and every cell's provenance in one file",
    "claims.md": "what the data say about the claims of the study",
    "summary.parquet": "every metric with its interval over engine processes",
    "self_check.parquet": "how often this run's intervals leave out the truth",
    "trials.parquet": "every trial, rejected ones marked",
    "requests.parquet": "every request",
    "provenance.json": "the records of all cells",
}
FORMATS = {
    "": "text/plain",
    ".yaml": "application/yaml",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
    ".md": "text/markdown",
    ".html": "text/html",
}


def records_of(results: Path) -> dict[Path, dict[str, Any]]:
    """The record of each cell, by the folder that holds it.

    Raises:
        ColdprefixError: the folder is none of a finished run.
    """
    found = {path.parent: read_json(path) for path in sorted(results.glob("raw/**/provenance.json"))}
    missing = [name for name in SHOWN if not (results / name).is_file()]
    if not found or missing:
        raise ColdprefixError(
            f"{results} is not the results folder of a finished run: it lacks {', '.join(missing) or 'raw/'}; run snakemake"
        )
    return found


def write_crate(results: Path) -> Path:
    """Write the metadata file, and the workflow beside it. Returns the metadata file.

    Raises:
        ColdprefixError: as ``records_of``.
    """
    from rocrate.model.computationalworkflow import ComputationalWorkflow
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    records = records_of(results)
    citation = read_json(ROOT / "codemeta.json")
    for name in ("Snakefile", "config.yaml"):
        (results / "crate").mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, results / "crate" / name)
    crate = ROCrate(version="1.1")  # what the profiles build on
    crate.metadata.extra_contexts.append(TERMS)
    began, ended = (
        edge(datetime.fromisoformat(record[key]) for record in records.values()).isoformat(timespec="seconds")
        for edge, key in ((min, "started_at"), (max, "finished_at"))
    )
    crate.root_dataset["datePublished"] = ended  # not now: the same run gives the same bytes

    def context(identifier: str, kind: str, /, **properties: Any) -> Any:
        return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))

    def file(name: str, description: str) -> Any:
        path = results / name
        told = {"name": name, "description": description, "encodingFormat": FORMATS[path.suffix]}
        told |= {"sha256": sha256_of_file(path), "contentSize": str(path.stat().st_size)}
        return crate.add_file(str(path), name, properties=told)

    profiles = [context(i, "CreativeWork", name=name, version=i.rsplit("/", 1)[1]) for i, name in PROFILES.items()]
    crate.root_dataset["conformsTo"] = profiles
    crate.metadata["conformsTo"] = [{"@id": "https://w3id.org/ro/crate/1.1"}, {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"}]
    authors = [context(f"#{a['name'].replace(' ', '-')}", "Organization", name=a["name"]) for a in citation["author"]]
    licence = context(citation["license"], "CreativeWork", name="MIT License", description="Code and data of this crate.")
    crate.name, crate.description, crate.license = f"A run of {citation['name']}", citation["description"], licence
    crate.root_dataset["author"] = authors

    language = context(
        SNAKEMAKE,
        "ComputerLanguage",
        name="Snakemake",
        alternateName="Snakemake",
        identifier={"@id": "https://doi.org/10.1093/bioinformatics/bts480"},
        url={"@id": "https://snakemake.readthedocs.io"},
    )
    workflow = crate.add(ComputationalWorkflow(crate, str(results / "crate" / "Snakefile"), "crate/Snakefile"))
    workflow["name"], workflow["version"] = citation["name"], __version__
    workflow["programmingLanguage"], workflow["author"], workflow["license"] = language, authors, licence
    workflow["encodingFormat"], workflow["sha256"] = FORMATS[""], sha256_of_file(results / "crate" / "Snakefile")
    crate.mainEntity = workflow

    asked = file("crate/config.yaml", "what is measured, unless the plan says otherwise")
    plan = file("plan.json", "the job of each cell, as asked for")
    made = [file(name, description) for name, description in SHOWN.items()]
    for folder in records:
        name = folder.relative_to(results).as_posix()
        made.append(file(f"{name}/requests.parquet", "raw rows of a cell"))
        made.append(file(f"{name}/provenance.json", "machine, engine, settings in force and job of a cell"))
    engines = sorted({(r["job"]["engine"], str(r["in_force"].get("version"))) for r in records.values()})
    tools = [context(f"#{name}-{version}", "SoftwareApplication", name=name, version=version) for name, version in engines]
    hosts = [record["host"] for record in records.values()]
    told = sorted({f"{h['cpu']}, {h['cores']} cores, {h['memory_gib']} GiB, {h['system']} {h['kernel']}" for h in hosts})
    action = context(
        "#run",
        "CreateAction",
        name=f"{len(records)} cells measured with coldprefix {__version__}",
        description=f"Measured on: {'; '.join(told)}.",
        startTime=began,
        endTime=ended,
        actionStatus="http://schema.org/CompletedActionStatus",
    )
    action["instrument"], action["object"], action["result"], action["agent"] = workflow, [asked, plan], made, authors[0]
    workflow["softwareRequirements"] = tools
    crate.root_dataset["mentions"] = [action]
    target = results / METADATA
    target.write_text(json.dumps(crate.metadata.generate(), indent=1, sort_keys=True) + "\n")
    return target


def check(results: Path) -> None:
    """Ask roc-validator whether the folder is a Workflow Run Crate: all that its profile requires. It reads RO-Crate's context from the network.

    Raises:
        ColdprefixError: it is not, or that could not be found out; quotes what it says.
    """
    program = Path(sys.executable).with_name("rocrate-validator")
    command = [str(program), "--disable-color", "--no-interactive", "validate", str(results), "--profile-identifier", "workflow-run-crate"]
    done = subprocess.run([*command, "--requirement-severity", "required", "--output-format", "json"], capture_output=True, text=True)
    try:
        found = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise ColdprefixError(f"roc-validator could not check {results}; it needs the network. It says:\n{said}") from None
    if not found["passed"]:
        problems = [f"{issue['check']['identifier']}: {issue['message']} ({issue.get('violatingEntity')})" for issue in found["issues"]]
        raise ColdprefixError(f"{results} is no Workflow Run Crate, says roc-validator:\n  " + "\n  ".join(problems))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the results folder of a finished run")
    parser.add_argument("--check", action="store_true", help="also ask roc-validator")
    arguments = parser.parse_args()
    say(f"written: {write_crate(arguments.results)}")
    if arguments.check:
        check(arguments.results)
        say("roc-validator: a valid Workflow Run Crate")


if __name__ == "__main__":
    run_main(main)
