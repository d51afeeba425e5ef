"""Every table, page and figure of a reference once more from its raw data, by the workflow's own programs and without the workflow:
nothing here can measure."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.artifact import same
from coldprefix.artifact.judge import Judged, as_claimed
from coldprefix.artifact.reference import Reference
from coldprefix.data.parquet import read_table
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json
from coldprefix.setup.building import ROOT
from coldprefix.study import registry

SCRIPTS = ROOT / "workflow" / "scripts"
FORMATS = ("pdf", "png", "csv", "txt")
# Which of these bytes may differ where the rows behind them and the picture do not: another version of a font library writes them otherwise.
MAY_DIFFER = ".pdf"


Options = dict[str, Any]  # by their names: a value, several, or None for one that takes none


@dataclass(frozen=True)
class Program:
    """A program of workflow/scripts and what it makes."""

    name: str
    makes: str
    options: Options
    what: str | None = None

    @property
    def arguments(self) -> list[str]:
        told = [self.what] if self.what else []
        for name, value in self.options.items():
            told += [f"--{name}", *map(str, value if isinstance(value, list) else [] if value is None else [value])]
        return told


def figures_of(plan: dict[str, Any]) -> dict[str, registry.Drawn]:
    """The figures whose experiments a plan holds."""
    held = {name: {cell.split("/")[0] for cell in cells} for name, cells in plan["experiments"].items()}
    return {
        name: figure
        for name, figure in registry.figures().items()
        if all(held.get(e) and (figure.phase is None or figure.phase in held[e]) for e in figure.experiments)
    }


def stages(reference: Reference) -> list[list[Program]]:
    """What to run, stage after stage; the programs of a stage need nothing of each other. Paths in the folder where they run are relative."""
    plan, shipped = reference.plan, reference.results
    asked: Options = {"plan": shipped / "plan.json"}
    raw = asked | {"raw": shipped / "raw"}
    tables = [
        Program("aggregate", f"the tables of {name}", raw | {"experiment": name, "out": f"results/experiments/{name}"})
        for name in plan["experiments"]
    ]
    tables.append(Program("aggregate", "the tables of all cells", raw | {"out": "results", "requests": None}))
    drawn = []
    for name, figure in figures_of(plan).items():
        inputs = {
            option: [f"results/experiments/{e}/{file}" for e in figure.experiments]
            for option, file in (("trials", "trials.parquet"), ("summary", "summary.parquet"), ("provenance", "provenance.json"))
        }
        drawn.append(Program("plot", f"figure {name}", asked | inputs | {"out": _files(name)}, name))
    everything: Options = {"trials": "results/trials.parquet", "provenance": "results/provenance.json"}
    claims = {"claims": ROOT / "claims.yaml", "converter": shipped / "setup" / "converter_refusal.json"}
    drawn.append(
        Program("check_claims", "the claims", everything | claims | {"out": "results/claims.parquet", "markdown": "results/claims.md"})
    )
    report: Options = everything | {f"{name.replace('_', '-')}": f"results/{name}.parquet" for name in ("summary", "claims", "self_check")}
    pictures = [*figures_of(plan)]
    calibration = shipped / "calibration"
    if calibration.exists():
        pictures.append("calibration")
        samples = {"samples": calibration / "samples.parquet", "out": _files("calibration")}
        drawn.append(Program("plot", "figure calibration", asked | samples, "calibration"))
        report |= {"calibration": calibration / "calibration.txt", "clock": calibration / "summary.parquet"}
    if (reference.expected / "results" / "peers").exists():
        rounds = shipped / "peers" / "rounds.parquet"
        peers: Options = {"out": "results/peers"} | ({"rounds": rounds} if rounds.exists() else {})
        peers |= {"trials": "results/experiments/main/trials.parquet"} if "main" in plan["experiments"] else {}
        drawn.append(Program("compare_peers", "the peers", peers))
        report |= {"peers": "results/peers/peers.txt"}
    card = shipped / "floor" / "card.json"
    if card.exists():
        drawn.append(Program("floor", "figure floor", asked | everything | {"card": card, "out": _files("floor")}))
        pictures.append("floor")
    report |= {"figures": [f"figures/{name}.png" for name in pictures], "out": "results/report.html"}
    return [tables, drawn, [Program("build_report", "the report", report)]]


def _files(figure: str) -> list[str]:
    return [f"figures/{figure}.{format}" for format in FORMATS]


def workers() -> ProcessPoolExecutor:
    """Processes, one for each CPU, that run one program after the other: loading what they import takes longer than most of them."""
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn"))


def make(reference: Reference, out: Path, pool: ProcessPoolExecutor | None = None) -> list[str]:
    """Run all programs in ``out``, in these ``workers`` or in some of its own. Returns a line for each that failed, with its message.

    Raises:
        ColdprefixError: a process was killed that ran them.
    """
    out.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    try:
        with workers() if pool is None else contextlib.nullcontext(pool) as running:
            for stage in stages(reference):
                failed += [line for line in running.map(partial(_run, out=out.absolute()), stage) if line]
    except BrokenProcessPool as error:
        raise ColdprefixError(f"{reference.name}: a process that makes tables and figures was killed; is there memory left?") from error
    return failed


def _run(program: Program, out: Path) -> str | None:
    """In a process of its own: what a program of workflow/scripts does when it is started there."""
    os.chdir(out)
    script = str(SCRIPTS / f"{program.name}.py")
    sys.argv = [script, *program.arguments]
    said = io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        except Exception:
            traceback.print_exc()
            code = 1
    if not code:
        return None
    message = said.getvalue().strip().split("coldprefix: ", 1)[-1].split("\n\n")[0]
    return f"{program.makes}: {message or f'exit code {code}'}"


@dataclass(frozen=True)
class Rendered:
    """What came out.

    Attributes:
        broken: files of the reference that are not as they were shipped.
        failed: programs that failed, with their messages.
        differing: shipped files that came out otherwise, by name, with what differs.
        noted: the same where it does not count.
        equal: number of files that came out as shipped.
        claims: each claim with PASS or FAIL.
    """

    broken: list[str]
    failed: list[str]
    differing: dict[str, str]
    noted: dict[str, str]
    equal: int
    claims: list[Judged]

    @property
    def passed(self) -> bool:
        return not (self.broken or self.failed or self.differing) and all(claim.passed for claim in self.claims)


def render(reference: Reference, out: Path, pool: ProcessPoolExecutor | None = None) -> Rendered:
    """Make everything in ``out`` (an empty folder, or one of an earlier render) and set it beside what was shipped. ``pool``: as of `make`."""
    broken, failed = reference.check(), make(reference, out, pool)
    shipped = sorted(file for file in reference.expected.rglob("*") if file.is_file() and file.suffix != ".sha256")
    found = {
        file.relative_to(reference.expected).as_posix(): same.difference(file, out / file.relative_to(reference.expected))
        for file in shipped
    }
    differing = {name: text for name, text in found.items() if text}
    noted = {
        name: text
        for name, text in differing.items()
        if name.endswith(MAY_DIFFER) and "was not made" not in text and not _behind(name, differing)
    }
    differing = {name: text for name, text in differing.items() if name not in noted}
    claims = as_claimed(read_table(reference.expected / "results" / "claims.parquet"), _claims_in(out))
    return Rendered(broken, failed, differing, noted, len(found) - len(differing) - len(noted), claims)


def _behind(name: str, differing: Iterable[str]) -> bool:
    """Does what a PDF shows differ in one of its other forms?"""
    return any(name.removesuffix(MAY_DIFFER) + f".{format}" in differing for format in FORMATS if f".{format}" != MAY_DIFFER)


def _claims_in(out: Path) -> pl.DataFrame | None:
    try:
        return read_table(out / "results" / "claims.parquet")
    except ColdprefixError:
        return None


def text(reference: Reference, found: Rendered) -> str:
    """For the terminal."""
    plan = reference.plan
    rows = sum(read_json(file)["requests"] for file in reference.results.rglob("provenance.json"))
    lines = [f"{reference.name}: {len(plan['cells'])} cells, {rows} raw requests; {found.equal} files came out as shipped"]
    lines += [f"  FAIL raw data: {line}" for line in found.broken]
    lines += [f"  FAIL {line}" for line in found.failed]
    lines += [f"  FAIL {name}: {text}" for name, text in found.differing.items()]
    lines += [f"  note {name}: {text}; its rows and its picture are as shipped" for name, text in found.noted.items()]
    lines += [f"  {claim.line}" for claim in found.claims if not (claim.passed and claim.reason == "not decided")]
    same = [claim.id for claim in found.claims if claim.passed and claim.reason == "not decided"]
    lines += [f"  PASS, as not decided by these data: {', '.join(same)}"] if same else []
    lines.append(f"{reference.name}: {'PASS' if found.passed else 'FAIL'}")
    return "\n".join(lines) + "\n"
