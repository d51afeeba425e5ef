"""ARTIFACT.md: the appendix that venues ask for, made from claims.yaml, the shipped references and study/artifact.yaml (`make docs`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import yaml

from coldprefix import __version__
from coldprefix.artifact.reference import Reference, references
from coldprefix.claims import listed
from coldprefix.claims.checks import check
from coldprefix.claims.listed import Claim
from coldprefix.claims.page import effect_of
from coldprefix.claims.scope import hardware_of
from coldprefix.claims.verdict import show
from coldprefix.data.parquet import read_table
from coldprefix.files import read_json
from coldprefix.setup.building import ROOT

FACTS = (
    ROOT / "study" / "artifact.yaml"
)  # what no program can find out: how long set-up took on which machine, licences, what is not claimed


def page() -> str:
    """The text of ARTIFACT.md."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    # Markdown, not HTML: nothing is escaped.
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    claims = listed.load(ROOT / "claims.yaml")
    shipped = references()
    return environment.get_template("ARTIFACT.md.jinja").render(
        version=__version__,
        facts=yaml.safe_load(FACTS.read_text()),
        references=[_told(reference) for reference in shipped],
        claims=[row for reference in shipped for row in claim_rows(claims, reference)],
        open=_open(claims, shipped),
        megabytes=sum(file.stat().st_size for reference in shipped for file in reference.folder.rglob("*") if file.is_file()) / 1e6,
    )


def claim_rows(claims: Sequence[Claim], reference: Reference) -> list[dict[str, Any]]:
    """What a reference says about each claim that it decides: with the experiments that show it, the command, minutes, the expected result and
    how far another machine may be from it."""
    table = read_table(reference.expected / "results" / "claims.parquet")
    by_id = {claim.id: claim for claim in claims}
    minutes = minutes_of(reference)
    rows = []
    for row in table.filter(pl.col("verdict") != "not decided").iter_rows(named=True):
        if row["id"] not in by_id:
            continue
        counts = check(by_id[row["id"]].test).counts
        experiments = experiments_of(row)
        rows.append(
            {
                "reference": reference.name,
                "id": row["id"],
                "statement": row["statement"],
                "verdict": row["verdict"],
                "experiments": experiments,
                "command": f"snakemake --config experiments={','.join(experiments)} -- results/claims.md"
                if experiments
                else "snakemake results/claims.md",
                "minutes": sum(minutes.get(name, 0.0) for name in experiments),
                "expected": effect_of(row),
                "threshold": f"{show(row['threshold'])} {row['unit']}",
                "tolerance": "none: counts" if counts else "the verdict",
                "figure": row["figure"],
                "finding": row["finding"],
            }
        )
    return rows


def experiments_of(row: Mapping[str, Any]) -> list[str]:
    """The experiments that a claim's cells (phase/variant/configuration/state) belong to; empty for one on records."""
    variants = [name.split("/") for name in row["rows"] if re.fullmatch(r"[^/]+(/[^/]+){3,4}", name) and name.startswith("phase")]
    return sorted({parts[1] for parts in variants}, key=lambda name: (name != "main", name))


def minutes_of(reference: Reference) -> dict[str, float]:
    """Minutes of measuring by experiment, engine starts included, as the reference's own records have them."""
    found = {}
    for experiment, cells in reference.plan["experiments"].items():
        records = [read_json(reference.results / "raw" / cell / "provenance.json") for cell in cells]
        found[experiment] = sum(record["job_s"] for record in records) / 60
    return found


def _told(reference: Reference) -> dict[str, Any]:
    records = [read_json(file) for file in sorted(reference.results.rglob("provenance.json"))]
    minutes = minutes_of(reference)
    return {
        "name": reference.name,
        "cells": len(records),
        "requests": sum(record["requests"] for record in records),
        "hardware": "; ".join(dict.fromkeys(hardware_of(record) for record in records)),
        "memory_gib": records[0]["host"]["memory_gib"],
        "kernel": records[0]["host"]["kernel"],
        "python": records[0]["software"]["python"],
        "engines": ", ".join(dict.fromkeys(f"{record['job']['engine']} {record['in_force'].get('version')}" for record in records)),
        "models": ", ".join(dict.fromkeys(record["job"]["model"]["name"] for record in records)),
        "experiments": ", ".join(minutes),
        "minutes": sum(minutes.values()),
        "finished": max(record["finished_at"] for record in records)[:10],
        "commits": ", ".join(dict.fromkeys(str(record["software"]["commit"])[:12] for record in records)),
    }


def _open(claims: Sequence[Claim], shipped: Sequence[Reference]) -> list[dict[str, str]]:
    """The claims that no reference decides."""
    decided = {row["id"] for reference in shipped for row in claim_rows(claims, reference)}
    return [{"id": claim.id, "statement": claim.statement} for claim in claims if claim.id not in decided]
