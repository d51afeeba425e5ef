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
from coldprefix.study.config import Config

PAGE = """# What was reused, by model, edit and backend

Written from the raw files of {source}; nothing in it is typed by hand. {where}

## What runs where

{runs}

## Tokens reused

Of [A, B] and a question ({lengths} tokens of A, B and Q), all trials, burn-in and rejected ones included. *first*: the query; *second*: the streaming query after
the old prompt has been sent again; *old prompt again*: that old prompt after the query. In brackets what the rule of the engine's cache says where it is
a range, in bold where it is another number. {right} of {all} are as the rule says.

{counts}
"""
ASKED = {"query": "first", "stream": "second", "rewarm": "old prompt again"}


class Count(NamedTuple):
    """What one step of the trials of one state reused."""

    model: str
    variant: str
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
                    yield Count(job.model.name, job.variant, kind.state, step, job.phase, promise, tuple(seen))


def page(cells: Sequence[tuple[Mapping[str, Any], pl.DataFrame]], config: Config, source: str = "a run") -> str:
    """Both tables, with what they are of.

    Args:
        config: names the models that its sweeps ask for, measured or not, and their architectures.
        source: what they were read from, in words.
    """
    jobs = [record["job"] for record, _ in cells]
    sweeps = [config.sweeps[name] for name in dict.fromkeys(job["sweep"] for job in jobs) if name in config.sweeps]
    asked = [variant.model for sweep in sweeps for variant in sweep.variants.values() if variant.model]
    names = dict.fromkeys(asked + [job["model"]["name"] for job in jobs])
    architectures = {name: config.models[name].architecture if name in config.models else "-" for name in names}
    versions = sorted({f"{registry.engine(r['job']['engine']).title} {r['in_force']['version']}" for r, _ in cells})
    lengths = sorted({"/".join(str(kind["lengths"][part]) for part in "ABQ") for job in jobs for kind in job["kinds"]})
    found = list(counts(cells))
    return PAGE.format(
        source=source,
        where=f"{', '.join(versions)}; {jobs[0]['accelerator']}.",
        runs=runs_table(cells, architectures, list(registry.phases()), jobs[0]["accelerator"]),
        lengths=", ".join(lengths),
        right=sum(not count.wrong for count in found),
        all=len(found),
        counts=counts_table(found),
    )


def runs_table(
    cells: Sequence[tuple[Mapping[str, Any], pl.DataFrame]], architectures: Mapping[str, str], phases: Sequence[str], accelerator: str
) -> str:
    """Model x backend: how many trials it ran, or why it does not.

    Args:
        architectures: of the models, in the order of the rows.
    """
    ran: dict[tuple[str, str], list[int]] = {}
    for record, rows in cells:
        trials = rows.group_by("process", "trial", "state", "configuration").agg(pl.col("rejection").is_not_null().any())
        own = ran.setdefault((record["job"]["model"]["name"], record["job"]["phase"]), [0, 0])
        own[0] += trials.height
        own[1] += int(trials["rejection"].sum())
    lines = [_row(["model", "architecture", *phases]), _row(["---"] * (2 + len(phases)))]
    for model, architecture in architectures.items():
        told = []
        for phase in phases:
            why = registry.engine(registry.phases()[phase].engine).refusals(accelerator).get(architecture)
            trials_of, rejected = ran.get((model, phase), (0, 0))
            measured = f"{trials_of} trials" + (f", {rejected} rejected" if rejected else "")
            told.append(measured if trials_of else f"refused: {why}" if why else "not measured")
        lines.append(_row([model, architecture, *told]))
    return "\n".join(lines)


def counts_table(found: Sequence[Count]) -> str:
    """Model x edit x backend: tokens reused; with what the rule says where that is another number, or a range."""
    phases = [phase for phase in registry.phases() if any(count.phase == phase for count in found)]
    names = _names(found)
    states = registry.in_order([count.state for count in found])
    by_place: dict[tuple[int, int, int], dict[str, Count]] = {}
    for count in found:
        place = list(dict.fromkeys(names.values())).index(names[count.model, count.variant]), states.index(count.state)
        by_place.setdefault((*place, list(ASKED).index(count.step)), {})[count.phase] = count
    lines = [_row(["model", "state", "asked", *phases]), _row(["---"] * (3 + len(phases)))]
    for _, own in sorted(by_place.items(), key=lambda item: item[0]):
        one = next(iter(own.values()))
        told = [str(own[phase]) if phase in own else "-" for phase in phases]
        lines.append(_row([names[one.model, one.variant], one.state, ASKED[one.step], *told]))
    return "\n".join(lines)


def _names(found: Sequence[Count]) -> dict[tuple[str, str], str]:
    """What a row is called, by model and variant: the model, and the variant where a sweep has several of that model."""
    variants: dict[tuple[str, str], set[str]] = {}
    for count in found:
        variants.setdefault((count.model, count.variant.split("/")[0]), set()).add(count.variant)
    several = {place: own for place, own in variants.items() if len(own) > 1}
    return {
        (count.model, count.variant): f"{count.model}, {count.variant}"
        if (count.model, count.variant.split("/")[0]) in several
        else count.model
        for count in found
    }


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
