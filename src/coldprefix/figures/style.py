"""What all figures share: size, fonts, colours, bars and points, and how figures are written."""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import polars as pl

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from coldprefix.analysis.statistics import Estimate
from coldprefix.files import write_bytes
from coldprefix.measure import edits
from coldprefix.study import registry
from coldprefix.study.config import Figures

# Okabe and Ito's palette: distinct for the colour-blind; the hatch keeps states apart in grey, too. One colour and marker for each backend
# in all figures, none of them the colour of a state.
STATE_MARKERS = dict(zip(registry.EDITS, itertools.cycle("osDv^P<>X"), strict=False))
# An endpoint has the look of none of them.
BACKEND_COLOURS = defaultdict(lambda: "#666666", {phase: registry.interface_of(phase).colour for phase in registry.phases()})
BACKEND_MARKERS = defaultdict(lambda: "*", {phase: registry.interface_of(phase).marker for phase in registry.phases()})
INTERFACES = {"http": "HTTP", "python": "Python"}
GROUP = 0.76  # width of a group of bars, between whole numbers


@dataclass(frozen=True)
class Measured:
    """What a figure is drawn from: trials (tables.TRIALS), summary (tables.SUMMARY), and a provenance record per cell."""

    trials: pl.DataFrame
    summary: pl.DataFrame
    provenance: Sequence[Mapping[str, Any]]

    @property
    def phases(self) -> list[str]:
        """The backends measured, in the order of the study."""
        found = set(self.trials["phase"])
        return [phase for phase in registry.phases() if phase in found] + sorted(found - set(registry.phases()))

    @property
    def states(self) -> list[str]:
        """The cache states measured, in the order of the registry."""
        return states_in(self.trials)

    def of(self, **keys: Any) -> Measured:
        """The part with these values of sweep, variant, phase and so on."""
        wanted = [pl.col(key) == value for key, value in keys.items()]
        records = [r for r in self.provenance if all(r["job"][key] == value for key, value in keys.items())]
        return Measured(self.trials.filter(wanted), self.summary.filter(wanted), records)


@dataclass(frozen=True)
class Drawing:
    """A figure, the rows it shows, and its caption: what is shown, and of how many trials."""

    figure: Figure
    rows: pl.DataFrame
    caption: str


def backend_title(phase: str) -> str:
    """ "vLLM HTTP" and so on."""
    engine, interface = registry.backend_of(phase)
    if phase not in registry.phases():
        return f"{phase} HTTP"
    return f"{registry.engine(engine).title} {INTERFACES.get(interface, interface)}"


def lengths_of(provenance: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, int]]:
    """Lengths of A, B and Q by the name of the configuration, in the order they were measured."""
    return {kind["configuration"]: kind["lengths"] for record in provenance for kind in record["job"]["kinds"]}


def states_in(rows: pl.DataFrame) -> list[str]:
    """The states among rows of any table, in the order of the registry."""
    return registry.in_order(rows["state"].unique(maintain_order=True))


def state_colour(state: str) -> str:
    """The colour of a state, which is its edit's."""
    return registry.edit(state).colour


def state_hatch(state: str) -> str:
    """The hatch of a state, which keeps states apart in grey."""
    return registry.edit(state).hatch


def state_marker(state: str) -> str:
    """The marker of a state: one for each edit."""
    return STATE_MARKERS[edits.name_of(state)]


def beside(states: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """(state, offset from the middle of its group, width) of each state's bar."""
    width = GROUP / max(1, len(states))
    for i, state in enumerate(states):
        yield state, (i - (len(states) - 1) / 2) * width, width


def pale(colour: str) -> str:
    """A colour half way to white."""
    return to_hex([1 - (1 - part) * 0.45 for part in to_rgb(colour)])


def patch(state: str, label: str, **style: Any) -> Patch:
    """A state's entry in a legend."""
    return Patch(**{"facecolor": state_colour(state), "hatch": state_hatch(state), "edgecolor": "white", "label": label, **style})


def configuration_label(name: str, lengths: Mapping[str, int] | None) -> str:
    """A configuration's name for an axis: its lengths on two lines."""
    return f"A {lengths['A']}\nB {lengths['B']}" if lengths else name


def apply(settings: Figures) -> None:
    """Set matplotlib up: embedded TrueType fonts, sizes in points of the printed page."""
    size = settings.font_pt
    plt.rcParams.update(
        {
            "pdf.fonttype": 42,
            "ps.fonttype": 42,
            "font.family": "DejaVu Sans",
            "font.size": size,
            "axes.titlesize": size,
            "axes.labelsize": size,
            "xtick.labelsize": size - 1,
            "ytick.labelsize": size - 1,
            "legend.fontsize": size - 1,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "hatch.linewidth": 0.4,
            "errorbar.capsize": 1.5,
            "figure.constrained_layout.use": True,
        }
    )


def per_token(ms: float) -> str:
    """A cost per token for a label: "0.55 ms/token", "3.2 µs/token" where it is below a tenth of a millisecond, as on a GPU."""
    value, unit = (ms, "ms") if abs(ms) >= 0.0995 else (1e3 * ms, "µs")
    return f"{value:#.2g}".rstrip(".").replace("-", "\u2212") + f" {unit}/token"


def signed(value: float, digits: int) -> str:
    """A number with its sign, the minus a real one."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\u2212")  # + 0.0: no minus before a zero


def row_of(found: Estimate) -> dict[str, Any]:
    """An estimate as the columns of a figure's table, named as those of summary."""
    shown = {"n": found.n, "processes": found.processes, "median": found.value, "sd_processes": found.sd, "df": found.df}
    return shown | {"ci_low": found.low, "ci_high": found.high}


def errors(row: Mapping[str, Any]) -> list[list[float]]:
    """Error bars of a row as matplotlib wants them; of length zero where there is no interval."""
    if row["median"] is None or row["ci_low"] is None:
        return [[0.0], [0.0]]
    return [[max(0.0, row["median"] - row["ci_low"])], [max(0.0, row["ci_high"] - row["median"])]]


def bar(axes: Axes, x: float, row: Mapping[str, Any], state: str, width: float, **style: Any) -> None:
    """One bar with its interval, in the colour of its state."""
    style = {"color": state_colour(state), "hatch": state_hatch(state), "edgecolor": "white", "linewidth": 0.3, **style}
    axes.bar(x, row["median"], width, yerr=errors(row), error_kw={"elinewidth": 0.7, "ecolor": "black", "zorder": 5}, **style)


def points(axes: Axes, x: float, values: Sequence[float], width: float) -> None:
    """The processes' own values over a bar, side by side, so that equal ones show, and below its interval."""
    places = [x + width * 0.6 * ((i + 0.5) / len(values) - 0.5) for i in range(len(values))]
    axes.plot(places, values, "o", color="white", markersize=2, markeredgecolor="black", markeredgewidth=0.35, zorder=4)


def top(row: Mapping[str, Any]) -> float:
    """The highest that is drawn of a row: the end of its interval, or its value."""
    return max((float(row[key]) for key in ("median", "ci_high") if row[key] is not None), default=0.0)


def find(summary: pl.DataFrame, **keys: Any) -> dict[str, Any] | None:
    """The one row with these values, or None if it is not there or has no median."""
    for row in summary.iter_rows(named=True):
        if all(row[key] == value for key, value in keys.items()):
            return row if row["median"] is not None else None
    return None


def _content(drawing: Drawing, suffix: str, settings: Figures) -> bytes:
    """In memory first: matplotlib's PDF writer hides an error of the disk behind one of its own."""
    if suffix == ".csv":
        return drawing.rows.write_csv().encode()
    if suffix == ".txt":
        return (drawing.caption + "\n").encode()
    metadata = {"CreationDate": None} if suffix == ".pdf" else {"Software": None}
    buffer = io.BytesIO()
    drawing.figure.savefig(buffer, format=suffix.removeprefix("."), dpi=settings.png_dpi, metadata=metadata)
    return buffer.getvalue()


def save(drawing: Drawing, paths: Iterable[Path], settings: Figures) -> None:
    """Write a figure in the formats its paths name, .csv for the drawn rows, .txt for the caption. Two runs over the same data write the same bytes."""
    for path in paths:
        write_bytes(path, _content(drawing, path.suffix, settings))
    plt.close(drawing.figure)
