"""The one exception whose message is meant for the person who typed the command."""

from __future__ import annotations

import sys
from collections.abc import Callable


class ColdprefixError(Exception):
    """Something the user can understand and act on: the message says what happened, where, and what to do."""


class EngineRefusal(ColdprefixError):
    """The engine works, but will not take this request: a prompt too long for it, for example."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and turn a ColdprefixError into one readable message and exit code 1."""
    try:
        sys.exit(main() or 0)
    except ColdprefixError as error:
        print(f"\ncoldprefix: {error}\n", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ncoldprefix: interrupted\n", file=sys.stderr)
        sys.exit(130)
