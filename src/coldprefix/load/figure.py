"""Figure 13: what one client's miss costs its neighbours, by the number of steady clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.figures import captions, style
from coldprefix.load.clients import STATES
from coldprefix.load.table import METRICS
from coldprefix.study.config import Figures

LOOKS = {"none": ("#888888", "s", "nothing"), "hit": ("#0072B2", "o", "a hit"), "miss": ("#D55E00", "D", "a miss")}


def draw(found: pl.DataFrame, rows: pl.DataFrame, records: Sequence[Mapping[str, Any]], settings: Figures) -> style.Drawing:
    """A row of panels for each metric, a column for each backend and variant."""
    style.apply(settings)
    columns = list(dict.fromkeys(found.sort("phase", "variant").select("phase", "variant").iter_rows()))
    width = settings.column_in if len(columns) < 3 else settings.text_in
    figure, axes = plt.subplots(len(METRICS), len(columns), figsize=(width, 3.9), sharex=True, sharey="row", squeeze=False)
    for across, (phase, variant) in enumerate(columns):
        axes[0, across].set_title(f"{style.backend_title(phase)}\n{variant}")
        for down, (metric, (label, _, _)) in enumerate(METRICS.items()):
            own = axes[down, across]
            for shift, state in enumerate(STATES):
                colour, marker, name = LOOKS[state]
                shown = found.filter(phase=phase, variant=variant, metric=metric, state=state).sort("clients").to_dicts()
                x = [row["clients"] * 1.05 ** (shift - 1) for row in shown]
                y = [row["median"] for row in shown]
                error = [[style.errors(row)[side][0] for row in shown] for side in (0, 1)]
                own.errorbar(x, y, error, color=colour, marker=marker, markersize=3, linewidth=0.9, elinewidth=0.6, label=name)
            own.set_xscale("log", base=2)
            if not across:
                own.set_ylabel(label.replace("time between two", "time between\ntwo"))
        levels = sorted(set(found["clients"]))
        axes[-1, across].set_xticks(levels, [str(level) for level in levels])
        axes[-1, across].set_xlabel("steady clients")
    for down in range(len(METRICS)):  # when all is drawn: the panels of a row share their axis
        axes[down, 0].set_ylim(0, 1.05 * axes[down, 0].get_ylim()[1])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), title="another client sends", loc="outside upper center", ncols=3)
    said = _said(rows, records)
    captions.note(figure, said, settings.font_pt)
    text = "Longest time between two tokens of requests that were being answered when another client's request came, and time to first token of a"
    text += " steady client's hit that was sent 5 ms after it; where it sends nothing, of the first requests of a round, and of one sent at that time."
    return style.Drawing(figure, found, f"{text} {said.replace(chr(10), ' ')}")


def _said(rows: pl.DataFrame, records: Sequence[Mapping[str, Any]]) -> str:
    weights, machine = captions.where(records)
    processes = [int(n) for n in rows.group_by("phase", "variant").agg(pl.col("engine_process").n_unique())["engine_process"]]
    rejected = rows["rejection"].is_not_null().sum()
    spans = f"{min(processes)}" if min(processes) == max(processes) else f"{min(processes)} to {max(processes)}"
    return f"Weights: {weights}. {machine}.\n{spans} engine process{'' if max(processes) == 1 else 'es'} each, {rows.height} requests, {rejected} rejected.\nBars: {captions.INTERVAL}."
