"""The advice as a picture: ms to the first token of the prompt as it stands and in its best order."""

from __future__ import annotations

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.advice.table import AS_IT_STANDS, BEST
from coldprefix.figures import captions, style
from coldprefix.study.config import Figures

LOOKS = {AS_IT_STANDS: "#D55E00", BEST: "#0072B2"}


def draw(advice: pl.DataFrame, settings: Figures, scope: str) -> style.Drawing:
    """``scope``: weights and machine. Draw a group of two bars for each backend, as measured, with the prediction as a line across each."""
    style.apply(settings)
    phases = advice["phase"].unique(maintain_order=True).to_list()
    figure, axes = plt.subplots(figsize=(settings.column_in, 2.5))
    width = style.GROUP / 2
    for i, phase in enumerate(phases):
        for name, shift in ((AS_IT_STANDS, -0.5), (BEST, 0.5)):
            row = advice.row(by_predicate=(pl.col("phase") == phase) & (pl.col("order") == name), named=True)
            x = i + shift * width
            shown = {"median": row["measured_ms"], "ci_low": row["measured_low"], "ci_high": row["measured_high"]}
            if shown["median"] is not None:
                axes.bar(x, shown["median"], width, yerr=style.errors(shown), color=LOOKS[name], error_kw={"elinewidth": 0.7}, label=None)
            if row["predicted_ms"] is not None:
                axes.plot([x - width / 2, x + width / 2], [row["predicted_ms"]] * 2, color="black", linewidth=1, linestyle="--")
            axes.annotate(
                f"{row['computed_tokens']:.0f}",
                (x, 0),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=settings.font_pt - 2,
                color="white",
            )
    axes.set_xticks(
        range(len(phases)), [f"{title}\n{_saved(advice, phase)}" for phase, title in zip(phases, captions.backends(phases), strict=True)]
    )
    axes.tick_params(axis="x", labelsize=settings.font_pt - 1)  # intervals stand side by side
    axes.set_ylabel("expected TTFT (ms)")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in LOOKS.items()]
    figure.legend(
        handles=[*handles, plt.Line2D([], [], color="black", linestyle="--", label="predicted")], loc="outside upper center", ncols=3
    )
    captions.note(figure, scope.replace("; ", ".\n") + f".\nBars: {captions.INTERVAL}.", settings.font_pt)
    text = "Expected time to first token of a request of the prompt, as it stands and in its best order, with the expected number of computed tokens"
    text += f" in the bars. Bars: measured, {captions.INTERVAL}; dashed: predicted from what other edits that compute as many tokens took in the same processes, and the rule of the engine's cache."
    text += (
        f" Below each backend: by how much the best order is earlier, as measured within each engine process, {captions.INTERVAL}. {scope}."
    )
    return style.Drawing(figure, advice, text)


def _saved(advice: pl.DataFrame, phase: str) -> str:
    """The measured saving of a backend in one line."""
    row = advice.row(by_predicate=(pl.col("phase") == phase) & (pl.col("order") == BEST), named=True)
    saved, low, high = (row[f"measured_saved_{part}"] for part in ("ms", "low", "high"))
    if saved is None:
        return ""
    interval = f"\n[{-high:.0f}, {-low:.0f}]" if low is not None else ""
    return f"{-saved:+.0f} ms{interval}".replace("-", "\N{MINUS SIGN}")
