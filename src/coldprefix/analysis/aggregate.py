"""From raw requests to trials and summary. Nothing is dropped: what is left out of statistics is counted and kept.

Cells are read one phase x configuration at a time and the large tables written as streams, so that memory is that of a few
cells, however many there are (benchmarks/scale.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.analysis import caveats, walltime
from coldprefix.analysis.comparable import SENT, check_comparable, check_planned, check_same_prompts, machines_among
from coldprefix.analysis.self_check import SELF_CHECK, USED, self_check
from coldprefix.analysis.self_check import text as rates
from coldprefix.analysis.summary import COMPARISONS, summary_of, table, trials_of
from coldprefix.data import tables
from coldprefix.data.parquet import write_parquet, write_table
from coldprefix.data.raw import read_cell, read_record
from coldprefix.data.tables import SUMMARY, TRIALS
from coldprefix.files import write_json, write_text


def aggregate(raw: Path, planned: Mapping[str, Mapping[str, Any]], out: Path, requests: bool, vary: Sequence[str] = ()) -> str:
    """Write trials.parquet, summary.parquet, self_check.parquet, provenance.json (a list), summary.txt and, if asked for,
    requests.parquet; the sha256 of each table beside it.

    Args:
        raw: folder of the cells' folders.
        planned: the jobs of the plan by their cells' paths in it.
        vary: what may differ between the cells ("host").

    Returns:
        The text of summary.txt.

    Raises:
        ColdprefixError: a raw file that is missing, damaged, edited, another cell's, or measured by another job than planned; or cells that
            cannot be compared.
    """
    records = {cell: read_record(raw / cell, cell) for cell in planned}
    check_planned(records, planned)
    check_comparable(list(records.values()), vary)
    together: dict[tuple[Any, ...], list[str]] = {}
    pairs: dict[tuple[Any, ...], list[str]] = {}
    for cell, record in records.items():
        job = record["job"]
        place = (job["variant"], job["configuration"])
        together.setdefault((job["model"]["name"], *place), []).append(cell)
        pairs.setdefault((job["phase"], *place), []).append(cell)
    for same in together.values():
        if len(same) > 1:
            check_same_prompts(pl.concat([read_cell(raw / cell, cell, records[cell]).select(SENT) for cell in same]))
    out.mkdir(parents=True, exist_ok=True)
    summaries, doubts = [], []
    parts = out / ".parts"  # always the same, so that what a killed program leaves there is removed
    shutil.rmtree(parts, ignore_errors=True)
    try:
        for number, pair in enumerate(pairs.values()):
            frames = [read_cell(raw / cell, cell, records[cell]) for cell in pair]
            trials = trials_of(pl.concat(frames).lazy()).collect().cast(tables.schema(TRIALS))
            tables.validate(trials, TRIALS, "trials")
            write_parquet(trials, parts / f"{number:06}.parquet")
            summaries.append(summary_of(trials))
            doubts.append(caveats.caveats_of(trials, [records[cell] for cell in pair]))
        write_table(pl.scan_parquet(sorted(parts.iterdir())), out / "trials.parquet")
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    summary = pl.concat(summaries).sort(pl.col("metric").is_in(COMPARISONS), maintain_order=True)
    tables.validate(summary, SUMMARY, "summary")
    write_table(summary, out / "summary.parquet")
    checked = self_check(pl.read_parquet(out / "trials.parquet", columns=USED))
    tables.validate(checked, SELF_CHECK, "self_check")
    write_table(checked, out / "self_check.parquet")
    if requests:
        write_table(pl.scan_parquet([raw / cell / "requests.parquet" for cell in planned]), out / "requests.parquet")
    write_json(out / "provenance.json", list(records.values()))
    found = pl.concat(doubts)
    number = len(machines_among(list(records.values())))
    several = f"{number} machines, each of equal weight: intervals are those on these machines (docs/cluster.md)\n" if number > 1 else ""
    text = f"{table(summary)}{several}\n{rates(checked)}\n{walltime.table(list(records.values()))}" + (
        f"\n{caveats.text(found)}" if len(found) else ""
    )
    write_text(out / "summary.txt", text)
    return text
