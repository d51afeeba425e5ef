"""What must be so before jobs are submitted to a cluster, where all of them may start at once, and on any node."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence

from coldprefix.errors import ColdprefixError
from coldprefix.study.config import Config

SETUP = ("environment", "model", "gguf", "preflight", "settings", "converter")  # rules whose order their priorities set, on one machine


def check_submission(
    config: Config,
    due: Collection[str],
    measuring: Collection[str],
    extras: Collection[str],
    files: Sequence[str] = (),
    values: Sequence[str] = (),
) -> None:
    """Refuse a run under a cluster's executor that could not end well.

    Args:
        due: rules that have jobs to do.
        measuring: rules that measure.
        extras: options for sbatch of the measuring jobs.
        files, values: what the run was given as --configfile and --config, for the command that is named.

    Raises:
        ColdprefixError: something is not prepared, a value depends on where it is asked, or cells may land on several machines unasked.
    """
    if set(due) & set(measuring):
        _check_values(config, extras)
    setup = [rule for rule in SETUP if rule in due]
    if setup:
        again = ["snakemake", "--workflow-profile", "profiles/default"]
        again += ["--configfile", *files] if files else []
        again += ["--config", *values] if values else []
        raise ColdprefixError(
            f"not everything is prepared for a cluster ({', '.join(setup)} to do), where jobs start at once. On a node of the kind that measures, "
            f"run first: {shlex.join([*again, '--', 'prepared'])}"
        )


def _check_values(config: Config, extras: Collection[str]) -> None:
    guessed = [key for key in ("accelerator", "threads") if getattr(config, key) == "auto"]
    if guessed:
        values_of = {"accelerator": "accelerator=cpu or accelerator=cuda", "threads": "threads=N, the physical cores of a node"}
        raise ColdprefixError(
            f"{' and '.join(guessed)}: auto would be that of the machine that submits; write {' and '.join(values_of[key] for key in guessed)}"
        )
    named = [re.search(r"(?:--nodelist|-w)[= ](\S+)", extra) for extra in extras]
    nodes = {found[1] if found else None for found in named}
    one = len(nodes) == 1 and not any(node is None or re.search(r"[,\[]", node) for node in nodes)
    if "host" not in config.vary and not one:
        raise ColdprefixError(
            "cells may land on several machines, which aggregation would refuse: write vary=host, which makes the machine a block in the "
            "statistics, or pin them to one node: add --nodelist=NODE to slurm_extra in the profile"
        )
