"""Two tables from the raw files of a run: which backend runs which model, and what each of them reused beside what its rule says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from coldprefix.data.raw import read_cell, read_record, rows_below
from coldprefix.engines.reuse import Promise
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure.prompts import draw_trial
from coldprefix.measure.protocol import PARTNER_TOKENS, steps_of
from coldprefix.study import registry

ASKED = {"query": "first", "stream": "second", "rewarm": "old prompt again"}


class Count(NamedTuple):
    """What one step of the trials of one state reused."""

    model: str
    state: str
    step: str
    phase: str
    predicted: Promise
    seen: tuple[int | None, ...]

    @property
    def wrong(self) -> bool:
        return not all(reused is not None and self.predicted.holds(reused) for reused in self.seen)

    def __str__(self) -> str:
        seen = ", ".join("none told" if reused is None else str(reused) for reused in self.seen)
        if self.seen == (self.predicted.least,) and self.predicted.least == self.predicted.most:
            return seen
        return f"{seen} ({'**not ' if self.wrong else ''}{self.predicted}{'**' if self.wrong else ''})"


def read(raw: Path, experiments: Sequence[str]) -> list[tuple[dict[str, Any], pl.DataFrame]]:
    """The records and rows of all cells of these experiments below a folder of raw files. Raises ColdprefixError if there are none."""
    found = []
    for file in rows_below(raw):
        cell = file.parent.relative_to(raw).as_posix()
        record = read_record(file.parent, cell)
        if record["job"]["sweep"] in experiments:
            found.append((record, read_cell(file.parent, cell, record)))
    if not found:
        raise ColdprefixError(
            f"there is no cell of {', '.join(experiments)} below {raw}; run snakemake --config experiments={experiments[0]}"
        )
    return found


def counts(cells: Sequence[tuple[Mapping[str, Any], pl.DataFrame]]) -> Iterator[Count]:
    """What was reused in each step of each state, burn-in and rejected trials included, beside what the rule of the settings in force says."""
    for record, rows in cells:
        job = Job.model_validate(record["job"])
        for kind in job.kinds:
            own = rows.filter(pl.col("state") == kind.state, pl.col("configuration") == kind.configuration)
            streamed = own.filter(pl.col("step") == "stream")["generated_tokens"].drop_nulls().to_list()
            tokens = max(streamed, default=PARTNER_TOKENS)  # a partner's are 2 in data of earlier versions
            prompts = draw_trial(kind.lengths, kind.state, job.model.vocabulary, job.protocol.seed, 0, 0, "fresh")
            memory = registry.engine(job.engine).memory(record["in_force"], job.interface)
            for step, prompt, generated in steps_of(prompts, tokens):
                promise = memory.ask(prompt, generated)
                if step in ASKED:
                    seen = own.filter(pl.col("step") == step)["cached_tokens"].unique().sort().to_list()
                    yield Count(job.model.name, kind.state, step, job.phase, promise, tuple(seen))


def runs_table(
    cells: Sequence[tuple[Mapping[str, Any], pl.DataFrame]], architectures: Mapping[str, str], phases: Sequence[str], accelerator: str
) -> str:
    """Model x backend: how many trials it ran, or why it does not.

    Args:
        architectures: of the models, in the order of the rows.
    """
    ran: dict[tuple[str, str], str] = {}
    for record, rows in cells:
        trials = rows.group_by("process", "trial", "state", "configuration").agg(pl.col("rejection").is_not_null().any())
        rejected = int(trials["rejection"].sum())
        ran[record["job"]["model"]["name"], record["job"]["phase"]] = f"{trials.height} trials" + (
            f", {rejected} rejected" if rejected else ""
        )
    lines = [_row(["model", "architecture", *phases]), _row(["---"] * (2 + len(phases)))]
    for model, architecture in architectures.items():
        told = []
        for phase in phases:
            why = registry.engine(registry.phases()[phase].engine).refusals(accelerator).get(architecture)
            told.append(ran.get((model, phase)) or (f"refused: {why}" if why else "not measured"))
        lines.append(_row([model, architecture, *told]))
    return "\n".join(lines)


def counts_table(found: Sequence[Count]) -> str:
    """Model x edit x backend: tokens reused; with what the rule says where that is another number, or a range."""
    phases = [phase for phase in registry.phases() if any(count.phase == phase for count in found)]
    by_place: dict[tuple[str, str, str], dict[str, Count]] = {}
    for count in found:
        by_place.setdefault((count.model, count.state, count.step), {})[count.phase] = count
    lines = [_row(["model", "state", "asked", *phases]), _row(["---"] * (3 + len(phases)))]
    for (model, state, step), own in by_place.items():
        lines.append(_row([model, state, ASKED[step], *(str(own[phase]) if phase in own else "-" for phase in phases)]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
