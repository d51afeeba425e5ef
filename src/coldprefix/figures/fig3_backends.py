"""Figure 3: what the caches differ in, one thing changed at a time: the cache state, then whether the prompt was seen before."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from coldprefix.analysis.statistics import apart, difference, estimate
from coldprefix.analysis.summary import BASELINE, COMPARISONS, COST_PER_TOKEN, EFFECT, in_pct
from coldprefix.figures import captions, style
from coldprefix.study.config import Figures

CONFIGURATION = "A512_B256"  # the one that the sweep `confound` repeats
LOOKS: dict[str, dict[str, str]] = {"fresh": {}, "repeated": {"color": style.pale(style.state_colour("miss")), "hatch": "xxxx"}}
SHOWN = [
    "phase",
    "variant",
    "configuration",
    "state",
    "metric",
    "unit",
    "n",
    "processes",
    "median",
    "sd_processes",
    "df",
    "ci_low",
    "ci_high",
]


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw, per backend, what a miss and a cold prompt cost over a hit, and the same misses with fresh and with repeated prompts."""
    style.apply(settings)
    main, confound = data.of(variant="main"), data.of(sweep="confound")
    found = set(main.trials["configuration"])
    configuration = CONFIGURATION if CONFIGURATION in found or not found else str(main.trials["configuration"][0])
    main = main.of(configuration=configuration)
    figure, (left, right) = plt.subplots(1, 2, figsize=(settings.text_in, 2.8))
    costs = main.summary.filter(pl.col("metric").is_in(COMPARISONS)).select(SHOWN)
    states = [state for state in style.states_in(costs) if state != BASELINE]
    _costs(left, costs, main.trials, data.phases, states, settings)
    rows = _contents(right, confound, data.phases, settings)
    for panel in (left, right):
        panel.set_xticks(range(len(data.phases)), captions.backends(data.phases))
        panel.set_xlim(-0.5, len(data.phases) - 0.5)
        panel.axhline(0, color="black", linewidth=0.6)
        low, high = panel.get_ylim()
        panel.set_ylim(low * 1.1 if low < 0 else 0, high * (1.65 if panel is left else 1.4))  # room for the legend
    left.set_ylabel("cost over a hit\n(ms for each token computed more)")
    right.set_ylabel("one-token answer to a miss (ms)")
    names = {"miss": "miss", "cold": "cold: nothing cached"}
    left.legend(handles=[style.patch(s, names.get(s, s)) for s in states], loc="upper left", ncols=2, handlelength=1.4)
    misses = [
        style.patch("miss", "miss, fresh prompts"),
        style.patch("miss", "miss, repeated prompts", facecolor=LOOKS["repeated"]["color"], hatch=LOOKS["repeated"]["hatch"]),
    ]
    right.legend(handles=misses, loc="upper left", ncols=2, handlelength=1.4, columnspacing=1.0)
    bars = "{}; points: processes' medians; bars: " + captions.INTERVAL + "."
    shown = style.Measured(pl.concat([main.trials, _misses(confound)]), data.summary, [*main.provenance, *confound.provenance])
    captions.note(figure, captions.measured_note(shown, bars=bars), settings.font_pt)
    text = f"What the caches differ in ({configuration}), one thing changed at a time. Left, the cache state: what a miss, and the prompt of a hit"
    text += " with nothing cached (cold), cost over a hit of the same engine process, in ms for each token computed more, and below that in % of the hit."
    text += (
        " Right, the prompts: the same misses under the same settings (llama-server has its default host-memory cache in both) with fresh"
    )
    text += " prompts and with repeated ones, from the second trial of a process on; over the bars, what repeating changes. A repeated miss"
    text += " is no miss where the engine still holds the prompt: there verification rejects it, and it is in no other figure but figure 6. Both"
    text += f" were measured minutes apart. Error bars: {captions.INTERVAL}; points: the processes' own values."
    table = pl.concat([costs, pl.DataFrame(rows, schema=costs.schema)])
    return style.Drawing(figure, table, captions.caption(shown, text))


def _costs(panel: Axes, costs: pl.DataFrame, trials: pl.DataFrame, phases: list[str], states: list[str], settings: Figures) -> None:
    for i, phase in enumerate(phases):
        for state, shift, width in style.beside(states):
            row = style.find(costs, phase=phase, state=state, metric=COST_PER_TOKEN)
            if row is None:
                _missing(panel, i + shift, settings)
                continue
            own = trials.filter("valid", pl.col("phase") == phase)
            cell, hits = (own.filter(pl.col("state") == name) for name in (state, BASELINE))
            units = difference(cell, hits, per="stream_evaluated_tokens").units
            style.bar(panel, i + shift, row, state, width)
            style.points(panel, i + shift, units, width)
            effect = style.find(costs, phase=phase, state=state, metric=EFFECT)
            text = style.per_token(row["median"])
            _label(panel, i + shift, max(style.top(row), *units), text, effect, settings, rotation=90)


def _misses(confound: style.Measured) -> pl.DataFrame:
    """Repeated misses are rejected as misses, by the engine's own count; here they are the subject. The first of a process is a true miss
    whatever the prompts, so it is left out of both."""
    shown = pl.col("valid") | (pl.col("content") == "repeated")
    later = confound.trials.filter(shown, ~pl.col("burn_in"), pl.col("trial") > 0, pl.col("query_ms").is_not_null())
    return later.with_columns(valid=pl.lit(True), rejection=pl.lit(None, pl.String()))


def _contents(panel: Axes, confound: style.Measured, phases: list[str], settings: Figures) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i, phase in enumerate(phases):
        own = _misses(confound).filter(pl.col("phase") == phase)
        cells = {content: own.filter(pl.col("content") == content) for content in ("fresh", "repeated")}
        change = in_pct(apart(cells["repeated"], cells["fresh"], "query_ms"))
        for (content, cell), shift in zip(cells.items(), (-0.5, 0.5), strict=True):
            x, width = i + shift * style.GROUP / 2, style.GROUP / 2
            if cell.is_empty():
                _missing(panel, x, settings)
                continue
            named = {"phase": phase, "variant": cell["variant"][0], "configuration": cell["configuration"][0], "state": "miss"}
            found = estimate(cell, "query_ms")
            row = style.row_of(found)
            rows.append(named | {"metric": "query_ms", "unit": "ms"} | row)
            style.bar(panel, x, row, "miss", width, **LOOKS[content])
            style.points(panel, x, found.units, width)
            if content == "repeated" and change.value is not None:
                effect = style.row_of(change)
                rows.append(named | {"metric": "repeated over fresh, query_ms", "unit": "%"} | effect)
                before = estimate(cells["fresh"], "query_ms").value
                text = "" if before is None or found.value is None else f"{style.signed(found.value - before, 0)} ms"
                # From the edge of its bar, so that it does not lie over the higher one on the left.
                _label(panel, x - width / 2, max(style.top(row), *found.units), text, effect, settings, ha="left")
    return rows


def _label(axes: Axes, x: float, y: float, text: str, effect: dict[str, Any] | None, settings: Figures, **place: Any) -> None:
    """Milliseconds, and below them the same in %."""
    text += f"\n{style.signed(effect['median'], 0)} %" if effect else ""
    place = {"ha": "center", "linespacing": 1.0, **place}
    axes.annotate(text, (x, y), (0, 2), textcoords="offset points", fontsize=settings.font_pt - 2, **place)


def _missing(panel: Axes, x: float, settings: Figures) -> None:
    panel.annotate("not measured", (x, 0), (0, 3), textcoords="offset points", ha="center", rotation=90, fontsize=settings.font_pt - 2.5)
