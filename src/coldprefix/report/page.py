"""The report: one HTML file that works offline, with the claims as its index and every number traceable to its rows.

Everything that came from outside (names, messages, the engines' own words) is escaped by the template; the page loads
nothing, and its Content-Security-Policy forbids that it could.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from coldprefix.advice import table as advice_table
from coldprefix.analysis import walltime
from coldprefix.analysis.caveats import caveats_of
from coldprefix.analysis.self_check import NOMINAL
from coldprefix.analysis.self_check import text as alarms
from coldprefix.analysis.summary import COMPARISONS
from coldprefix.errors import ColdprefixError
from coldprefix.figures.style import backend_title
from coldprefix.job import cell_of
from coldprefix.report import first_screen

FIRST = "fig1_invalidation"  # the one picture of the first screen
ROWS_SHOWN = 300  # of a figure; the download has all
METRICS = {"ttft_ms": "TTFT (ms)", "warmup_ms": "warm-up (ms)", "rewarm_ms": "re-warm (ms)", "throughput_tok_s": "tokens/s"}


def number(value: Any, digits: int = 4) -> str:
    """A number for reading; a dash for what is not known."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}" if isinstance(value, float) else str(value)
    return text.replace("-", "−") if isinstance(value, (int, float)) else text


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """ "12.3 [11.9, 12.8]"."""
    return number(value) + (f" [{number(low)}, {number(high)}]" if low is not None and high is not None else "")


def build(
    trials: pl.DataFrame,
    summary: pl.DataFrame,
    claims: pl.DataFrame | None,
    provenance: Sequence[Mapping[str, Any]],
    figures: Sequence[Path],
    calibration: str | None = None,
    peers: str | None = None,
    self_check: pl.DataFrame | None = None,
    clock: pl.DataFrame | None = None,
    advice: pl.DataFrame | None = None,
) -> str:
    """The page.

    Args:
        trials: tables.TRIALS, summary: tables.SUMMARY, claims: claims.table.CLAIMS or None where they were not checked.
        provenance: the record of each cell.
        figures: PNG files; the rows (.csv) and the caption (.txt) lie beside each.
        calibration: the table of `instrument.calibration.table`, with the targets that were missed.
        peers: the table of `instrument.peers.table`.
        self_check: self_check.SELF_CHECK: the same computation measured in two places.
        clock: the calibration's summary.
        advice: advice.table.ADVICE, where a prompt to advise on was given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    script = (Path(__file__).parent / "report.js").read_text()
    counted = trials.filter(~pl.col("burn_in"))
    rejected = counted.filter(pl.col("rejection").is_not_null())
    hosts = sorted(
        {f"{r['host']['cpu']}, {r['job']['threads']} threads" + "".join(f", {g['name']}" for g in r["host"]["gpus"]) for r in provenance}
    )
    models = sorted({r["job"]["model"]["name"] + (" (random weights)" if r["job"]["model"]["random_weights"] else "") for r in provenance})
    return template.render(
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        hosts=hosts,
        models=models,
        cells=len(provenance),
        trials=counted.height,
        n_rejected=rejected.height,
        minutes=sum(r["wall_s"] for r in provenance) / 60,
        claims=_claims(claims, {path.stem for path in figures}),
        figures=[_figure(path) for path in figures],
        settings=_settings(provenance),
        table=_cells(summary, provenance),
        metrics=METRICS,
        rejections=_rejections(rejected),
        provenance=[{"cell": cell_of(r["job"]).path, "text": json.dumps(r, indent=1, sort_keys=True)} for r in provenance],
        costs=walltime.breakdown(provenance),
        cost_parts=walltime.PARTS,
        between=walltime.between(provenance),
        caveats=caveats_of(trials, provenance).rows(named=True),
        calibration=calibration,
        peers=peers,
        self_check=None if self_check is None else alarms(self_check),
        nominal=NOMINAL,
        first=first_screen.lines(trials, summary, provenance, self_check, clock),
        advice=None if advice is None else {"answers": advice_table.answers(advice), "rows": advice_table.cells(advice)},
        advice_words={"title": advice_table.TITLE, "columns": advice_table.COLUMNS, "how": advice_table.HOW},
        picture=next((_figure(path) for path in figures if path.stem == FIRST), None),
        on_cpu=any(r["job"]["accelerator"] == "cpu" for r in provenance),
    )


def _claims(claims: pl.DataFrame | None, drawn: set[str]) -> list[dict[str, Any]] | None:
    if claims is None:
        return None
    rows = []
    for row in claims.iter_rows(named=True):
        figure = row["figure"] if row["figure"] in drawn else None
        effect = with_interval(row["effect"], row["effect_low"], row["effect_high"])
        more = {"figure": figure, "threshold_text": f"{number(row['threshold'])} {row['unit'] or ''}".strip()}
        more["effect_text"] = f"{effect} {row['unit']}" if row["effect"] is not None else "–"
        rows.append(row | more)
    return rows


def _figure(path: Path) -> dict[str, Any]:
    file = path.with_suffix(".csv")
    try:
        data = file.read_bytes()
        rows = pl.read_csv(data, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ColdprefixError(f"cannot read {file}: {error}. Delete it and run snakemake again to make it anew.") from None
    caption = path.with_suffix(".txt")
    return {
        "name": path.stem,
        "image": base64.b64encode(path.read_bytes()).decode(),
        "csv": base64.b64encode(data).decode(),
        "caption": caption.read_text().strip() if caption.exists() else "",
        "columns": rows.columns,
        "rows": [[number(value, 6) for value in row] for row in rows.head(ROWS_SHOWN).iter_rows()],
        "n": rows.height,
    }


def _settings(provenance: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was in force in the main experiment, or the first cell, of each backend; a row per setting."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for record in sorted(provenance, key=lambda r: r["job"]["variant"] != "main"):
        chosen.setdefault(record["job"]["phase"], record["in_force"])
    phases = sorted(chosen)
    keys = [key for key in dict.fromkeys(key for phase in phases for key in chosen[phase]) if key not in ("command", "libraries")]
    return {
        "phases": [backend_title(phase) for phase in phases],
        "rows": [(key, [number(chosen[phase].get(key)) for phase in phases]) for key in keys],
        "libraries": [(backend_title(p), sorted((chosen[p].get("libraries") or {}).items())) for p in phases if chosen[p].get("libraries")],
    }


def _cells(summary: pl.DataFrame, provenance: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per cell, and per state that others' jobs measured beside their own: medians with their intervals, valid and rejected trials."""
    jobs = _jobs(provenance)
    rows: dict[str, dict[str, Any]] = {}
    for row in summary.filter(~pl.col("metric").is_in(COMPARISONS)).iter_rows(named=True):
        cell = cell_of(row).path
        found = rows.setdefault(cell, {"cell": cell, "job": jobs.get(cell), "metrics": {}})
        if row["metric"] == "ttft_ms":
            found |= {
                "n": row["n"],
                "processes": row["processes"],
                "rejected": row["n_rejected"],
                "cached": number(row["cached_tokens"]),
                "computed": number(row["evaluated_tokens"]),
            }
        found["metrics"][row["metric"]] = with_interval(row["median"], row["ci_low"], row["ci_high"])
    return list(rows.values())


def _jobs(provenance: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By what was measured the cell whose job measured it: its own, or the first that has it among its partners or lengths."""
    jobs: dict[str, str] = {}
    for record in provenance:
        job = record["job"]
        for kind in job["kinds"]:
            jobs.setdefault(cell_of({**job, "configuration": kind["configuration"], "state": kind["state"]}).path, cell_of(job).path)
    return jobs | {path: path for path in (cell_of(record["job"]).path for record in provenance)}


def _rejections(rejected: pl.DataFrame) -> list[dict[str, Any]]:
    """Rejected trials by cell and reason, with the trials' numbers: process.trial, and the job's cell where it is another one."""
    keys = ["phase", "variant", "configuration", "state", "rejection"]
    place = pl.format("{}.{}", "process", "trial")
    named = pl.when("own").then(place).otherwise(pl.format("{} ({})", place, "job"))
    groups = rejected.group_by(keys, maintain_order=True).agg(trial=named)
    return [
        {"cell": cell_of(row).path, "reason": row["rejection"], "trials": ", ".join(map(str, row["trial"]))}
        for row in groups.iter_rows(named=True)
    ]
