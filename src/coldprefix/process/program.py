"""What every program of the workflow does: it ends with the workflow, and says what went wrong in one message. Standard library only."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from coldprefix.errors import ENDED, NO_MEMORY, NO_SPACE, ColdprefixError, Ended, no_space
from coldprefix.process.supervise import when_ended

PATIENCE_S = 45.0  # stopping vllm serve may take 30
VARIABLE = "COLDPREFIX_WORKFLOW"  # process id of the Snakemake that runs this program (common.smk)


def workflow_pid() -> int | None:
    """The process that runs the whole workflow; None where a program is run by hand. Asked before an engine replaces the environment."""
    return int(os.environ.get(VARIABLE) or 0) or None


def end_with_workflow() -> None:
    """End this process when the workflow has died, or else its parent: SIGKILL reaches one process only.

    By SIGTERM, and by SIGKILL if it has not ended then: Python sees no signal while an engine inside it does not come back.

    Not the parent where the workflow is known: a shell that Snakemake leaves behind goes on to its next command. Where the system has no
    pidfd (Linux before 5.3) nothing happens.
    """

    def end() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        when_ended(workflow_pid() or os.getppid(), end)
    except ProcessLookupError:
        print("\ncoldprefix: the run that started this program has ended\n", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except (OSError, AttributeError):
        return


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


def _fail(message: str, code: int = 1) -> None:
    print(f"\ncoldprefix: {message}\n", file=sys.stderr)
    sys.exit(code)
