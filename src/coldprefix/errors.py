"""The one exception whose message is meant for the person who typed the command."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coldprefix.parent import end_with_workflow

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
ENDED = "ended by SIGTERM; nothing of it is kept"
NO_MEMORY = "there is not enough memory; end other programs, or choose a smaller model, context or pool (config.yaml)"


class ColdprefixError(Exception):
    """Something the user can understand and act on: the message says what happened, where, and what to do."""


class EngineRefusal(ColdprefixError):
    """The engine works, but will not take this request: a prompt too long for it, for example."""


class Ended(SystemExit):
    """This program was told to end. Not an Exception, so that nothing on the way up takes it for a failure of its own."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and turn what a user can act on into one readable message and exit code 1.

    The script ends with the workflow that started it. SIGTERM unwinds it, so that it stops what it has started.
    """

    def end(_number: int, _frame: object) -> None:
        raise Ended(ENDED)

    signal.signal(signal.SIGTERM, end)
    end_with_workflow()
    try:
        sys.exit(main() or 0)
    except ColdprefixError as error:
        _fail(str(error))
    except MemoryError:
        _fail(NO_MEMORY)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        _fail(no_space(error.filename))
    except Ended as error:
        _fail(f"{Path(sys.argv[0]).name}: {error}" if str(error) == ENDED else str(error), 128 + signal.SIGTERM)
    except KeyboardInterrupt as error:
        _fail(str(error) or "interrupted", 128 + signal.SIGINT)


def no_space(file: str | Path | None) -> str:
    """What to say of a disk that is full."""
    return f"there is no space left on the disk{f' for {file}' if file else ''}; make room and run snakemake again"


@contextmanager
def naming(cell: str, log: Path) -> Iterator[None]:
    """Whatever fails inside is one message that begins with the cell and names the engine's log.

    Raises:
        ColdprefixError: for one, for a full disk and for a lack of memory.
        Ended, KeyboardInterrupt: as they came, with the cell in their message.
    """
    where = f"The engine's log: {log}"
    try:
        yield
    except ColdprefixError as error:
        text = str(error).removeprefix(f"{cell}: ")
        raise ColdprefixError(f"{cell}: {text}" + ("" if str(log) in text else f"\n{where}")) from None
    except MemoryError as error:
        raise ColdprefixError(f"{cell}: {NO_MEMORY}{f' ({error})' if str(error) else ''}. {where}") from None
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise ColdprefixError(f"{cell}: {no_space(error.filename)}. {where}") from None
    except Ended as error:
        raise Ended(f"{cell}: {error}. {where}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{cell}: interrupted; nothing of it is kept. {where}") from None


def _fail(message: str, code: int = 1) -> None:
    print(f"\ncoldprefix: {message}\n", file=sys.stderr)
    sys.exit(code)
