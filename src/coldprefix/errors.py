"""The one exception whose message is meant for the person who typed the command. Standard library only."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
ENDED = "ended by SIGTERM; nothing of it is kept"
NO_MEMORY = "there is not enough memory; end other programs, or choose a smaller model, context or pool (config.yaml)"


class ColdprefixError(Exception):
    """Something the user can understand and act on: the message says what happened, where, and what to do."""


class EngineRefusal(ColdprefixError):
    """The engine works, but will not take this request: a prompt too long for it, for example."""


class Refused(ColdprefixError):
    """The engine does not run this model, and would not the next time: the same files, build and settings (setup/refusals.py)."""


class Ended(SystemExit):
    """This program was told to end. Not an Exception, so that nothing on the way up takes it for a failure of its own."""


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
