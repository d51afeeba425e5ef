"""The one exception whose message is meant for the person who typed the command."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from coldprefix.parent import end_with_parent


class ColdprefixError(Exception):
    """Something the user can understand and act on: the message says what happened, where, and what to do."""


class EngineRefusal(ColdprefixError):
    """The engine works, but will not take this request: a prompt too long for it, for example."""


NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and turn what a user can act on into one readable message and exit code 1.

    The script ends with the program that started it.
    """
    end_with_parent()
    try:
        sys.exit(main() or 0)
    except ColdprefixError as error:
        _fail(str(error))
    except MemoryError:
        _fail("there is not enough memory; end other programs, or choose a smaller model, context or pool (config.yaml)")
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        _fail(f"there is no space left on the disk{f' for {error.filename}' if error.filename else ''}; make room and run snakemake again")
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(message: str, code: int = 1) -> None:
    print(f"\ncoldprefix: {message}\n", file=sys.stderr)
    sys.exit(code)
