"""What every figure says about itself: of how many processes and trials it is made, what its intervals are, and what they leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from coldprefix.figures.style import Measured, backend_title
from coldprefix.study import registry

INTERVAL = "95 % interval over engine processes (Student's t)"
CELL = ["phase", "variant", "configuration", "state"]
SHORT_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "BF16": "bf16", "F16": "f16", "F32": "f32"}


def note(figure: Figure, text: str, size: float) -> None:
    """What was measured, below the figure: weights, machine, trials."""
    figure.supxlabel(text, fontsize=size - 2, color="#444444", x=0.01, ha="left")


def where(provenance: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Weights and machine, e.g. "gpt2-standin (random weights)" and "Xeon, 2 threads"."""
    models = {r["job"]["model"]["name"]: r["job"]["model"]["random_weights"] for r in provenance}
    names = ", ".join(name + (" (random weights)" if random else "") for name, random in models.items())

    def machine(record: Mapping[str, Any]) -> str:
        host, job = record["host"], record["job"]
        if job["accelerator"] == "unknown":
            return f"a running server, asked from {host['cpu']}"
        return str(host["gpus"][0]["name"]) if job["accelerator"] == "cuda" and host["gpus"] else f"{host['cpu']}, {job['threads']} threads"

    kinds = " and ".join(dict.fromkeys(map(machine, provenance)))
    number = len({record["host"].get("machine") for record in provenance})
    return names, f"{number} machines: {kinds}" if number > 1 else kinds


def _span(values: Sequence[int], one: str, many: str) -> str:
    """ "3 processes", "3 to 6 processes"."""
    fewest, most = (min(values), max(values)) if values else (0, 0)
    number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{number} {one if most == 1 else many}"


def counted(trials: pl.DataFrame) -> str:
    """E.g. "3 to 6 engine processes and 12 to 24 trials for each value, 3 rejected"."""
    cells = trials.filter("valid").group_by(CELL, maintain_order=True).agg(n=pl.len(), processes=pl.col("engine_process").n_unique())
    rejected = trials.filter(~pl.col("burn_in") & pl.col("rejection").is_not_null()).height
    processes = _span(cells["processes"].to_list(), "engine process", "engine processes")
    text = f"{processes} and {_span(cells['n'].to_list(), 'trial', 'trials')} for each value"
    return text + (f", {rejected} rejected" if rejected else "")


def confounded(provenance: Sequence[Mapping[str, Any]]) -> str:
    """What differs between backends beside the backend; "" where only one is shown."""
    phases = list(dict.fromkeys(record["job"]["phase"] for record in provenance))
    if len(phases) < 2:
        return ""
    text = "Backends were measured at different times"
    types: dict[str, list[str]] = {}
    for record in provenance:
        types.setdefault(_title(record), []).append(_type(record))
    if len({dtype for own in types.values() for dtype in own}) > 1:
        named = " against ".join(f"{engine} {' and '.join(dict.fromkeys(own))}" for engine, own in types.items())
        text += f", and engines compute with different types ({named}): compare within an engine"
    return text + "."


def sent_late(provenance: Sequence[Mapping[str, Any]]) -> bool:
    """Does an engine here launch the next step before it sends a token? Then a streamed first token tells of more than the prefill."""
    return any(record["job"]["accelerator"] == "cuda" and record["in_force"].get("async_scheduling") for record in provenance)


def _scheduling(provenance: Sequence[Mapping[str, Any]]) -> str:
    titles = dict.fromkeys(_title(record) for record in provenance if sent_late([record]))
    if not titles:
        return ""
    named = " and ".join(titles)
    return (
        f"{named} launches the next step before it sends a token (asynchronous scheduling): its TTFT is what a client sees, and the prefill "
        "alone is the answer of one token that is not streamed (query_ms)."
    )


def _title(record: Mapping[str, Any]) -> str:
    return registry.engine(record["job"]["engine"]).title


def _type(record: Mapping[str, Any]) -> str:
    """Of the weights: that of the GGUF file which llama.cpp loads; vLLM says what it has in force."""
    dtype = record["job"]["model"].get("gguf_type") or record["in_force"].get("dtype") or record["job"]["settings"].get("dtype")
    if dtype == "auto":  # a record that does not tell: what it is where the hardware computes with 16 bits
        dtype = "bfloat16" if record["job"]["accelerator"] == "cpu" else "float16"
    return SHORT_TYPES.get(dtype, dtype) if dtype else "f16"


def measured_note(data: Measured, wrap: bool = False, bars: str = "{}; bars: " + INTERVAL + ".") -> str:
    """E.g. "Weights: gpt2-standin (random weights). Xeon, 2 threads. 3 engine processes and 12 trials for each value; bars: 95 % interval ..."."""
    names, machine = where(data.provenance)
    gap = "\n" if wrap else " "
    counts = bars.format(counted(data.trials))
    return f"Weights: {names}.{gap}{machine}.{gap if wrap else chr(10)}{counts}"


def caption(data: Measured, text: str) -> str:
    """``text`` with what every caption must say: processes, trials, weights, machine, and what is confounded."""
    names, machine = where(data.provenance)
    n = int(data.trials.filter("valid").height)
    said = f"{text} {counted(data.trials)}, {n} valid trials in all; {names}; one machine: {machine}. {confounded(data.provenance)}"
    return f"{said.strip()} {_scheduling(data.provenance)}".strip()


def backends(phases: Sequence[str]) -> list[str]:
    """Titles for an axis, on two lines."""
    return [backend_title(phase).replace(" ", "\n", 1) for phase in phases]


def value(row: Mapping[str, Any], digits: int) -> str:
    """A row of summary in words: "25.6 [23.2, 28.0] ms"."""
    shown = [f"{round(row[key], digits) + 0.0:.{digits}f}" for key in ("median", "ci_low", "ci_high") if row[key] is not None]
    interval = f" [{shown[1]}, {shown[2]}]" if len(shown) == 3 else ""
    return f"{shown[0]}{interval} {row['unit']}".replace("-", "\u2212")
