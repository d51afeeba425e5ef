"""A process of its own for each engine that lives inside the measuring program.

Heap, libraries, address layout and thread pool are drawn anew with each process; opening a session twice in one draws none of them
(Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time": repeat at the highest level at which results vary).
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.data.raw import as_frame
from coldprefix.errors import ColdprefixError, Ended
from coldprefix.files import write_json
from coldprefix.measure.protocol import Row
from coldprefix.process import supervise
from coldprefix.process.server import tail

ROWS, KNOWN = "rows.parquet", "known.json"


def measured_by_child(program: list[str], log: Path) -> tuple[list[Row], dict[str, Any]]:
    """Run ``program``, which calls `hand_over` in the folder that is added to its arguments, and return what it has handed over.

    Raises:
        ColdprefixError: it was ended by a signal, or could not be started.
        SystemExit: it failed, and has said why.
    """
    with tempfile.TemporaryDirectory(prefix="coldprefix-rows-") as temporary:
        folder = Path(temporary)
        with supervise.started([sys.executable, *program, "--hand-over", temporary]) as process:
            code = process.wait()
        if code > 128 or (not code and not (folder / KNOWN).exists()):
            ended = f"was ended by signal {code - 128} ({signal.Signals(code - 128).name})" if code else "ended without a result"
            raise ColdprefixError(f"the engine's process {ended}. The end of {log}:\n{tail(log)}")
        if code:
            raise SystemExit(code)
        return pl.read_parquet(folder / ROWS).to_dicts(), json.loads((folder / KNOWN).read_text())


def hand_over(folder: Path, rows: list[Row], known: dict[str, Any]) -> None:
    """Give what one process has measured to the program that has started it."""
    as_frame(rows).write_parquet(folder / ROWS)
    write_json(folder / KNOWN, known)


@contextmanager
def quiet() -> Iterator[None]:
    """Of a child: where its parent ends it, or Ctrl-C reaches the whole group, only the parent says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    except Ended:
        raise SystemExit(128 + signal.SIGTERM) from None
