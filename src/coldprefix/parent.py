"""A program of the workflow ends with the workflow, however that ends: SIGKILL reaches one process only. Standard library only."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time

PATIENCE_S = 45.0  # stopping vllm serve may take 30
VARIABLE = "COLDPREFIX_WORKFLOW"  # process id of the Snakemake that runs this program (common.smk)


def end_with_workflow() -> None:
    """End this process when the workflow has died: the process that $COLDPREFIX_WORKFLOW names, else this one's parent.

    By SIGTERM, and by SIGKILL if it has not ended then: Python sees no signal while an engine inside it does not come back.

    Not the parent where it is known: a shell that Snakemake leaves behind goes on to its next command. Where the system has no
    pidfd (Linux before 5.3) nothing happens.
    """
    if not hasattr(os, "pidfd_open"):
        return
    try:
        workflow = os.pidfd_open(int(os.environ.get(VARIABLE) or os.getppid()))
    except ProcessLookupError:
        print("\ncoldprefix: the run that started this program has ended\n", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except OSError:
        return

    def wait() -> None:
        select.select([workflow], [], [])  # readable when it has died
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
