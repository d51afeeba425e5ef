"""How far a prefill is from the least time that it can take: the floor of operations and bytes of the very card, and what each engine takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from coldprefix.figures import captions, style
from coldprefix.instrument.floor import Shape, floor_of, products_ms, table, work_of
from coldprefix.study.config import Figures

GREY = {"color": "#777777", "linewidth": 0.9}


def draw(data: style.Measured, card: Mapping[str, Any], settings: Figures) -> style.Drawing:
    """Draw, against the tokens that a prompt with nothing cached computes, its time unstreamed beside the floor, and how many times the floor it is.

    Args:
        card: what workflow/scripts/measure_card.py wrote.
    """
    style.apply(settings)
    shape = Shape(**card["shape"])
    rows = table(data.trials, shape, card)
    shown = rows.filter(pl.col("cached_tokens") == 0, pl.col("variant").is_in(["main", "scaling"])).sort("computed_tokens")
    figure, (left, right) = plt.subplots(1, 2, figsize=(settings.text_in, 2.4))
    most = float(shown["computed_tokens"].max() or 1024)  # type: ignore[arg-type]
    tokens = np.geomspace(16, most, 60)
    floors = [floor_of(work_of(shape, round(n), 0), card["tflop_s"], card["gbyte_s"]).floor_ms for n in tokens]
    products = [products_ms(card["products"], n) for n in tokens]
    left.plot(tokens, floors, "-", label="floor: operations or bytes", **GREY)
    left.plot(tokens, products, ":", label="the card's own matrix products", **GREY)
    right.axhline(1, **GREY)
    right.plot(tokens, np.array(products) / floors, ":", **GREY)
    for phase in data.phases:
        own = shown.filter(pl.col("phase") == phase)
        look: dict[str, Any] = {
            "color": style.BACKEND_COLOURS[phase],
            "marker": style.BACKEND_MARKERS[phase],
            "linestyle": "",
            "markersize": 3.5,
        }
        left.plot(own["computed_tokens"], own["query_ms"], label=style.backend_title(phase), **look)
        right.plot(own["computed_tokens"], own["times_floor"], **look)
    for panel, label in ((left, "one token, not streamed (ms)"), (right, "times the floor")):
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("tokens computed, nothing cached")
        panel.set_ylabel(label)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(lambda *_: "")
    figure.legend(loc="outside upper center", ncols=3 + len(data.phases) // 2, handlelength=1.6)
    rates = f"{card['tflop_s']:.0f} TFLOP/s and {card['gbyte_s']:.0f} GB/s"
    captions.note(figure, captions.measured_note(data, bars="{}.") + f" Measured of this card: {rates}.", settings.font_pt)
    text = "The time of a prompt with nothing cached beside the least that it can be. Left: medians of the answer of one token that is not streamed;"
    text += " the floor is the larger of the operations of all matrix products and attention at the best rate of a matrix product that was measured on"
    text += f" this card, and of the bytes of weights, keys and values at the bandwidth of a copy within its memory ({rates}). Dotted: what the card itself"
    text += " took for the matrix products of that many tokens, without attention. Right: how many times the floor. What lies above the dotted line is"
    text += " attention, launches and what surrounds them."
    return style.Drawing(figure, rows, captions.caption(data, text))
