"""Figure 3: what the cache architectures differ in: a first miss, a repeated one, and what the next warm-up costs."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.patches import Patch

from coldprefix.analysis.statistics import Estimate, degradation_pct, groups
from coldprefix.figures import style
from coldprefix.study.config import Figures

WIDTH = 0.38
CONFIGURATION = "A512_B256"  # the one that the sweep `confound` repeats


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw, per backend, the degradation of TTFT on first touch and repeated, and the re-warm after a hit and after a miss."""
    style.apply(settings)
    trials = data.trials
    configuration = CONFIGURATION if CONFIGURATION in set(trials["configuration"]) else str(trials["configuration"][0])
    main = trials.filter(pl.col("valid") & (pl.col("variant") == "main") & (pl.col("configuration") == configuration))
    # Repeated misses are rejected as misses, by the engine's own count; here they are the subject.
    repeated = trials.filter((pl.col("variant") == "confound/repeated") & (pl.col("trial") > 0))
    rows: list[dict[str, Any]] = []
    figure, (left, right) = plt.subplots(1, 2, figsize=(settings.text_in, 2.5))
    phases = data.phases
    for i, phase in enumerate(phases):
        own = main.filter(pl.col("phase") == phase)
        again = repeated.filter(pl.col("phase") == phase)
        hit, miss = (own.filter(pl.col("state") == state) for state in ("hit", "miss"))
        effects = {
            "first miss": (degradation_pct(groups(hit, "query_ms"), groups(miss, "query_ms")), miss["query_cached_tokens"].median()),
            "repeated miss": (degradation_pct(groups(hit, "query_ms"), groups(again, "query_ms")), again["query_cached_tokens"].median()),
        }
        for side, (name, (effect, reused)) in zip((-1, 1), effects.items(), strict=True):
            rows.append({"phase": phase, "quantity": f"TTFT of a {name} over a hit", "unit": "%", "cached_tokens": reused, **vars(effect)})
            _bar(left, i + side * WIDTH / 2, effect, phase, hatch="" if side < 0 else "....", settings=settings, percent=True)
        for side, (name, cell) in zip((-1, 1), (("hit", hit), ("miss", miss)), strict=True):
            cost = degradation_pct(groups(own, "warmup_ms"), groups(cell, "rewarm_ms"))
            share = Estimate(
                cost.n, None, _plus_100(cost.median), None, _plus_100(cost.ci_low), _plus_100(cost.ci_high)
            )  # of a cold warm-up
            reused = cell["rewarm_cached_tokens"].median()
            rows.append(
                {"phase": phase, "quantity": f"re-warm after a {name}, of a cold warm-up", "unit": "%", "cached_tokens": reused}
                | vars(share)
            )
            _bar(right, i + side * WIDTH / 2, share, phase, hatch="////" if side > 0 else "", settings=settings, percent=False)
    titles = [style.backend_title(phase).replace(" ", "\n", 1) for phase in phases]
    for panel in (left, right):
        panel.set_xticks(range(len(phases)), titles)
        panel.set_xlim(-0.5, len(phases) - 0.5)
        panel.axhline(0, color="black", linewidth=0.6)
        low, high = panel.get_ylim()
        panel.set_ylim(low * 1.1 if low < 0 else 0, high * 1.32)
    left.set_ylabel("TTFT of a miss over a hit (%)")
    right.set_ylabel("next warm-up (% of a cold one)")
    grey = "#999999"
    left.legend(
        handles=[
            Patch(facecolor=grey, label="first miss (fresh prompt)"),
            Patch(facecolor=grey, hatch="....", edgecolor="white", label="repeated miss (seen before)"),
        ],
        loc="upper left",
        handlelength=1.4,
    )
    right.legend(
        handles=[Patch(facecolor=grey, label="after a hit"), Patch(facecolor=grey, hatch="////", edgecolor="white", label="after a miss")],
        loc="upper left",
        handlelength=1.4,
    )
    style.note(figure, style.measured_note(data.of(variant="main", configuration=configuration)), settings.font_pt)
    text = f"What the caches differ in ({configuration}). Left: time of a one-token answer to a miss over that to a hit; the first time a prompt is"
    text += (
        " sent, and repeated, where llama-server has its default host-memory cache. A repeated miss is no miss where the engine still holds"
    )
    text += (
        " it. Right: the warm-up of [A, B] after a query, as a share of a cold one. Medians with 95 % bootstrap intervals; main experiment:"
    )
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.lit(configuration).alias("configuration"))
    return style.Drawing(figure, table, style.caption(data.of(variant="main", configuration=configuration), text))


def _plus_100(value: float | None) -> float | None:
    return None if value is None else value + 100


def _bar(axes: Any, x: float, estimate: Estimate, phase: str, hatch: str, settings: Figures, percent: bool) -> None:
    """A bar in the backend's colour with its value above it; nothing where nothing was measured."""
    row = vars(estimate)
    if row["median"] is None:
        axes.annotate("not measured", (x, 0), (0, 3), textcoords="offset points", ha="center", rotation=90, fontsize=settings.font_pt - 2.5)
        return
    colour = style.BACKEND_COLOURS[phase]
    yerr = style.interval(row)
    axes.bar(x, row["median"], WIDTH, yerr=yerr, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3, error_kw={"elinewidth": 0.7})
    top = max(0.0, row["ci_high"] if row["ci_high"] is not None else row["median"])
    text = style.signed(row["median"], 0) if percent else f"{row['median']:.0f}"
    axes.annotate(text, (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=settings.font_pt - 1.5)
