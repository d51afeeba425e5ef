"""Which settings must agree between the two interfaces of an engine, and what to say when they do not."""

from __future__ import annotations

from typing import Any

from coldprefix.engines import contract
from coldprefix.errors import ColdprefixError


def disagreements(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare two preflight records; records of different engines or models have nothing to agree on.

    Raises:
        ColdprefixError: a table of the settings that differ, with both values.
    """
    if one["engine"] != other["engine"] or one.get("model") != other.get("model"):
        return
    a, b = one["in_force"], other["in_force"]
    engine = contract.load(one["engine"])
    free = engine.may_differ(one.get("settings", {}))
    differing = [key for key in engine.must_agree if key not in free and a.get(key) != b.get(key)]
    if not differing:
        return
    lines = [f"  {'setting':<20} {one['phase'] + ' (' + one['interface'] + ')':<32} {other['phase']} ({other['interface']})"]
    lines += [f"  {key:<20} {a.get(key)!s:<32} {b.get(key)}" for key in differing]
    raise ColdprefixError(
        f"the two interfaces of {one['engine']} run with different settings, so their numbers cannot be compared:\n"
        + "\n".join(lines)
        + f"\nBoth take them from the section {one['engine']} of config.yaml; the engine did not do as asked. Its logs: results/logs/preflight/"
    )
