"""Figure 11: what the host-memory tier's save and restore cost by length, and from which length restoring beats computing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.analysis.statistics import Estimate, apart, estimate
from coldprefix.analysis.summary import BASELINE
from coldprefix.figures import captions, style
from coldprefix.study.config import Figures

ON, OFF = "tier/on", "tier/off"
# what: (variant, is it asked after another prompt?, column of tables.TRIALS, label, colour, marker)
LINES = {
    "restored": (ON, True, "ttft_ms", "restored from the tier", "#0072B2", "o"),
    "computed": (OFF, True, "ttft_ms", "computed: no tier", "#D55E00", "s"),
    "kept": (ON, False, "ttft_ms", "still in the slot", "#555555", "^"),
    "displacing, with a tier": (ON, True, "foreign_ms", "saves it first", "#0072B2", "o"),
    "displacing, without": (OFF, True, "foreign_ms", "no tier", "#D55E00", "s"),
}
Points = list[tuple[int, Estimate]]


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `tier`: above, TTFT of a cached prompt with a question after another prompt, restored and computed, by its length; below,
    the time of that other prompt, which saves it first or not."""
    style.apply(settings)
    data = data.of(sweep="tier")
    figure, axes = plt.subplots(2, 1, figsize=(settings.column_in, 3.9), sharex=True, height_ratios=[1.6, 1])
    rows: list[dict[str, Any]] = []
    lines: dict[str, Points] = {}
    for what, (variant, after_another, column, label, colour, marker) in LINES.items():
        own = _cells(data, variant, after_another)
        lines[what] = [(length, estimate(part, column)) for length, part in own]
        rows += [{"what": what, "variant": variant, "cached_prompt_tokens": n, "metric": column} | style.row_of(e) for n, e in lines[what]]
        shown = [(n, style.row_of(e)) for n, e in lines[what] if e.value is not None]
        bars = [[style.errors(row)[side][0] for _, row in shown] for side in (0, 1)]
        panel = axes[0 if column == "ttft_ms" else 1]
        look = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 0.9, "elinewidth": 0.7}
        panel.errorbar([n for n, _ in shown], [row["median"] for _, row in shown], yerr=bars, label=label, **look)
    at = crossing(lines["restored"], lines["computed"])
    if at is not None:
        axes[0].axvline(at, color="#777777", linestyle=":", linewidth=0.8)
        axes[0].annotate(
            f" from {at:.0f} on", (at, 0.55), xycoords=("data", "axes fraction"), ha="left", va="top", fontsize=settings.font_pt - 1
        )
    axes[0].set_ylabel("TTFT (ms)")
    axes[1].set_ylabel("the prompt in\nbetween (ms)")
    axes[1].set_xlabel("length of the cached prompt (tokens)")
    for panel in axes:
        panel.set_ylim(bottom=0)
        panel.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2, handlelength=1.6, columnspacing=1.2)
    captions.note(figure, captions.measured_note(data, wrap=True, bars="{};\nbars: " + captions.INTERVAL + "."), settings.font_pt)
    text = "llama-server's host-memory tier by the length of the cached prompt. Above, time to first token of that prompt with a question, after"
    text += (
        " another prompt has taken its slot: restored from the tier, computed again without one, and, for comparison, where nobody came in"
    )
    text += " between. Below, the time of that other prompt, which computes equally many tokens each time, and with a tier saves the cached one first."
    text += f" {told(lines['restored'], lines['computed'], at)} {_faster(data)} With and without the tier were measured by different jobs, minutes apart."
    text += f" Bars: {captions.INTERVAL}."
    return style.Drawing(figure, pl.DataFrame(rows, infer_schema_length=None), captions.caption(data, text))


def _cells(data: style.Measured, variant: str, after_another: bool) -> list[tuple[int, pl.DataFrame]]:
    state = pl.col("state") != BASELINE if after_another else pl.col("state") == BASELINE
    own = data.trials.filter("valid", pl.col("variant") == variant, state).sort("warmup_prompt_tokens")
    return [(int(length), part) for (length,), part in own.group_by("warmup_prompt_tokens", maintain_order=True)]


def crossing(restored: Points, computed: Points) -> float | None:
    """The length in tokens from which restoring is faster, between two measured ones by a straight line; None where the lines do not cross."""
    other = dict(computed)
    gaps = [(n, e.value - v) for n, e in restored if e.value is not None and n in other and (v := other[n].value) is not None]
    for (n, gap), (later, next_gap) in itertools.pairwise(gaps):
        if gap > 0 >= next_gap:
            return n + (later - n) * gap / (gap - next_gap)
    return None


def told(restored: Points, computed: Points, at: float | None) -> str:
    """The crossing in words."""
    if at is not None:
        return f"By the medians restoring is faster from about {at:.0f} tokens on (dotted)."
    other = dict(computed)
    faster = [e.value < v for n, e in restored if e.value is not None and n in other and (v := other[n].value) is not None]
    if not faster:
        return "Too little was measured to tell from which length on restoring is faster."
    which = "faster" if all(faster) else "slower" if not any(faster) else "faster at some lengths and slower at longer ones"
    return f"By the medians restoring is {which}{' at every length measured' if len(set(faster)) == 1 else ''}, so no crossing is marked."


def _faster(data: style.Measured) -> str:
    """At which lengths the interval tells."""
    on, off = (dict(_cells(data, variant, True)) for variant in (ON, OFF))
    found = {n: apart(on[n], off[n], "ttft_ms") for n in on if n in off}
    sure: dict[str, Sequence[int]] = {
        "faster": [n for n, e in found.items() if e.high is not None and e.high < 1],
        "slower": [n for n, e in found.items() if e.low is not None and e.low > 1],
    }
    parts = [f"{which} at {', '.join(map(str, lengths))} tokens" for which, lengths in sure.items() if lengths]
    return f"By the intervals it is {' and '.join(parts)}." if parts else "The intervals do not tell at any length."
