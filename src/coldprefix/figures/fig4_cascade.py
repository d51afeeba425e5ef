"""Figure 4: the cascade. The steps of a trial, their time, and the tokens that were reused and computed in each."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.patches import Patch

from coldprefix.analysis.statistics import estimate
from coldprefix.figures import captions, style
from coldprefix.study import registry
from coldprefix.study.config import Figures

CONFIGURATION = "A512_B256"
STEPS = {"warmup": "warm-up", "query": "query", "rewarm": "re-warm"}


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw a column per backend, and one for llama-server with its host-memory tier: time above, tokens below."""
    style.apply(settings)
    trials = data.trials
    configuration = CONFIGURATION if CONFIGURATION in set(trials["configuration"]) else str(trials["configuration"][0])
    shown = trials.filter(pl.col("variant").is_in(["main", "host_tier/on"]) & (pl.col("configuration") == configuration))
    shown = shown.filter(pl.col("state").is_in([state for state in data.states if registry.edit(state).warmed]))
    found = set(shown.select("phase", "variant").rows())
    columns = [(phase, variant) for phase in data.phases for variant in ("main", "host_tier/on") if (phase, variant) in found]
    figure, axes = plt.subplots(2, len(columns), figsize=(settings.text_in, 3.3), sharex=True, sharey="row", squeeze=False)
    rows: list[dict[str, Any]] = []
    states = style.states_in(shown)
    for panels, (phase, variant) in zip(axes.T, columns, strict=True):
        top, bottom = panels
        for state, shift, width in style.beside(states):
            cell = shown.filter(pl.col("valid") & (pl.col("phase") == phase) & (pl.col("variant") == variant) & (pl.col("state") == state))
            for i, step in enumerate(STEPS):
                time = style.row_of(estimate(cell, f"{step}_ms"))
                same = "query" if step == "query" else "warmup"  # the re-warm sends the warm-up's prompt again
                sent, cached = cell[f"{same}_prompt_tokens"].median(), cell[f"{step}_cached_tokens"].median()
                rows.append(
                    {"phase": phase, "variant": variant, "configuration": configuration, "state": state, "step": step}
                    | time
                    | {"unit": "ms", "prompt_tokens": sent, "cached_tokens": cached}
                )
                if time["median"] is None or sent is None or cached is None:
                    continue
                x = i + shift
                style.bar(top, x, time, state, width)
                reused: Any = cached
                computed = sent - reused
                bottom.bar(
                    x, computed, width, color=style.state_colour(state), hatch=style.state_hatch(state), edgecolor="white", linewidth=0.3
                )
                colour = style.pale(style.state_colour(state))
                bottom.bar(x, reused, width, bottom=computed, color=colour, edgecolor="white", linewidth=0.3)
        tier = "" if variant == "main" else "\n+ host tier"
        top.set_title(style.backend_title(phase) + tier if tier else style.backend_title(phase) + "\n")
        bottom.set_xticks(range(len(STEPS)), list(STEPS.values()), rotation=35, ha="right", rotation_mode="anchor")
    axes[0][0].set_ylabel("time (ms)")
    axes[1][0].set_ylabel("prompt tokens")
    handles = []
    for state in states:
        handles.append(style.patch(state, f"{state} trial: computed"))
        handles.append(Patch(facecolor=style.pale(style.state_colour(state)), label="reused"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handlelength=1.4, columnspacing=1.2)
    shown_data = style.Measured(shown, data.summary, data.provenance)
    captions.note(figure, captions.measured_note(shown_data), settings.font_pt)
    text = f"The cascade ({configuration}): the steps of a trial whose query is a hit or a miss, their time (above) and the prompt tokens that the"
    text += (
        " engine says it reused and computed (below). In one slot without a host-memory tier a miss destroys [A, B] and the re-warm pays"
    )
    text += " for it again; in a block pool, or with the tier, [A, B] survives. Bars: mean over processes of their medians;"
    text += " error bars: " + captions.INTERVAL + "."
    return style.Drawing(figure, pl.DataFrame(rows, infer_schema_length=None), captions.caption(shown_data, text))
