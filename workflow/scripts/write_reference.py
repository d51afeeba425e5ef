"""Write the reference from the code it describes (`make docs`): the configuration's schema and pages of keys and columns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pydantic import BaseModel

from coldprefix.analysis.merge import MERGED
from coldprefix.analysis.self_check import SELF_CHECK
from coldprefix.artifact import page as artifact
from coldprefix.artifact import reference
from coldprefix.data import tables
from coldprefix.data.tables import SCHEMA_VERSION
from coldprefix.engines.endpoint.settings import EndpointSettings
from coldprefix.report import reuse_table
from coldprefix.setup.building import ROOT
from coldprefix.study import checks, registry
from coldprefix.study.config import Compare, Config, Figures, Override, Sweep, Variant

SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("", Config),
    ("cells.PATTERN", Override),
    ("sweeps.NAME", Sweep),
    ("sweeps.NAME.variants.NAME", Variant),
    *((name, registry.engine(name).settings) for name in registry.ENGINES),
    ("endpoints.NAME", EndpointSettings),
    ("compare", Compare),
    ("figures", Figures),
    *((f"models.NAME (source: {name})", registry.source(name)) for name in registry.SOURCES),
]

OWN_MODEL = """
## A model of your own

It is used where it lies: never copied or changed, and nothing is written beside it. What it is called in results is its file's name.

    snakemake --config model=/path/to/model-Q4_K_M.gguf phases=phase3a,phase3b   # GGUF of any type; of a split file its first part
    snakemake --config model=/path/to/folder                                     # safetensors, config.json and tokenizer: all phases
    snakemake --config 'phase_models={phase3a: ./model.gguf, phase3b: ./model.gguf}' model=./folder   # both

The same as entries of `models`, with one that quantises what it converts, for the llama.cpp phases:

    models:
      mine: {source: folder, path: /path/to/folder}
      mine-q4: {source: folder, path: /path/to/folder, quantise: Q4_K_M}
      theirs: {source: gguf, path: /path/to/model-00001-of-00003.gguf}

From the Hub, in a GGUF file of its own:

    models:
      small: {source: hub, repository: owner/name, revision: FULL_COMMIT_HASH, architecture: llama, positions: 8192, vocabulary: 32000,
              files: {model-Q8_0.gguf: null}}

Architecture, positions and vocabulary are read from a model of this machine; an entry gives what its config.json leaves out (`positions`
of a Mamba). The sha256 of its files is its identity: a changed file is measured again.
""".splitlines()


def _type_text(schema: dict[str, Any]) -> str:
    """A JSON schema's type as words."""
    if "$ref" in schema:
        return "section"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(_type_text(s) for s in schema.get("anyOf") or schema["oneOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    bounds = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤")) if key in schema]
    kind = {"object": "mapping", "array": "list", "integer": "integer", "number": "number", "null": "null"}.get(
        schema["type"], schema["type"]
    )
    return " ".join([kind, *bounds])


def configuration_page() -> str:
    """docs/configuration.md"""
    lines = [
        "# Configuration",
        "",
        "Every key of `config.yaml`; the file itself shows the defaults with comments. Written by `make docs` from",
        "`src/coldprefix/study/config.py` and the engines' and sources' own types.",
        "",
        "    snakemake --config trials=5 phases=phase3a,phase3b        # single values",
        "    snakemake --configfile my.yaml                            # a file with only the keys that differ",
        *OWN_MODEL,
    ]
    for name, model in SECTIONS:
        title = f"`{name}`" if name else "Top level"
        doc = (model.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## {title}", "", doc if name else "", "", "| key | type | meaning |", "| --- | --- | --- |"]
        whole = model.model_json_schema()
        for key, schema in whole["properties"].items():
            kind = _type_text(schema).replace("|", "\\|")
            lines.append(f"| `{key}` | {kind} | {schema.get('description', '').replace('|', chr(92) + '|')} |")
    return "\n".join(line for i, line in enumerate(lines) if line or lines[i - 1]) + "\n"


def data_page() -> str:
    """docs/data.md"""
    lines = [
        "# Data",
        "",
        f"Schema version {SCHEMA_VERSION}. Raw requests are in `results/raw/PHASE/CONFIGURATION/STATE/requests.parquet`, never edited;",
        "`results/requests.parquet` is all of them, `trials` and `summary` are derived. Unknown is null, never 0. Written by `make docs` from",
        "`src/coldprefix/data/tables.py`. Beside each table that is not a cell's lies its sha256 (`sha256sum --check *.sha256`), looked at whenever",
        "it is read.",
        "",
        "Beside the rows lies the cell's `provenance.json`: machine, engine, settings in force, the job. Both carry the schema version; the",
        "record holds the sha256 of the rows (`requests_sha256`) and of itself (`record_sha256`: of its JSON without that key, keys sorted).",
        "A file that does not match is refused at aggregation, one of another schema version by its name: the coldprefix that wrote it reads it.",
    ]
    for name, columns in (
        ("requests", tables.REQUESTS),
        ("trials", tables.TRIALS),
        ("summary", tables.SUMMARY),
        ("self_check", SELF_CHECK),
        ("merged/summary", MERGED),
    ):
        lines += ["", f"## `{name}.parquet`", "", "| column | type | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{column}` | {dtype} | {meaning} |" for column, (dtype, meaning) in columns.items()]
    lines += ["", "Metrics of `summary.parquet`:", "", "| metric | unit | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{metric}` | {unit} | {meaning} |" for metric, (unit, meaning) in tables.METRICS.items()]
    return "\n".join(lines) + "\n"


def reused_page() -> str:
    """docs/reused.md"""
    asked = {"cpu-architectures": ["architectures", "architecture_edits"], "cpu-edits": ["edits"]}
    cells = [cell for name, sweeps in asked.items() for cell in reuse_table.read(reference.named(name).results / "raw", sweeps)]
    return reuse_table.page(cells, checks.load(ROOT / "config.yaml"), " and ".join(f"`reference/{name}`" for name in asked))


def pages() -> dict[Path, str]:
    """Every page by its path."""
    return {
        ROOT / "workflow" / "schemas" / "config.schema.json": json.dumps(Config.model_json_schema(), indent=1) + "\n",
        ROOT / "docs" / "configuration.md": configuration_page(),
        ROOT / "docs" / "data.md": data_page(),
        ROOT / "docs" / "reused.md": reused_page(),
        ROOT / "ARTIFACT.md": artifact.page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
