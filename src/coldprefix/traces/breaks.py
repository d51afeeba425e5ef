"""Where a prompt parts from an earlier one, and why: by the tokens on both sides, and by what of them comes again further on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldprefix.traces.tokens import Prompt
from coldprefix.traces.tree import Ids

RUN = 16  # tokens: what comes again is counted in runs of at least so many, since shorter ones are equal by chance
MERGED = 2  # last tokens of a prompt, which may become another token when it goes on
SHOWN = 8  # tokens of the text that is shown on each side
AROUND = 40  # characters on both sides in which a clock or an identifier is looked for
CLOCK = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?|\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?|\b1[5-9]\d{8}(?:\d{3})?(?:\.\d+)?\b"
    r"|\b\d{1,2}[ ./](?:\d{1,2}|[A-Z][a-z]{2,8})[ ./]\d{2,4}\b|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*\b"
    r"|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* \d{1,2}\b"
)
IDENTIFIER = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\b(?=[\w-]*\d)[0-9A-Za-z_-]{12,}\b|\b\d{6,}\b")

FIRST = "first"  # nothing is shared with any earlier request
GOES_ON = "goes on"  # all of the earlier prompt is shared
CLOCK_KIND = "clock"
ID_KIND = "identifier"
GONE = "gone"  # something of the earlier prompt is left out here
NEW = "put in"  # something stands here that the earlier prompt has not, and then the earlier one goes on
ORDER = "another order"
OTHER = "other text"
TITLES = {
    FIRST: "the first of its kind: nothing is shared",
    GOES_ON: "goes on where the earlier one ends: no break",
    CLOCK_KIND: "a clock",
    ID_KIND: "an identifier",
    GONE: "something of the earlier request is gone",
    NEW: "something new is put in",
    ORDER: "the same in another order",
    OTHER: "other text",
}


@dataclass(frozen=True)
class Break:
    """A break.

    Attributes:
        kind: one of TITLES.
        again_tokens: tokens behind the break that stand in the earlier prompt, too, in runs of at least RUN.
        field, earlier_field: where it is, here and in the earlier request; None: unknown.
        resumes: the field of the earlier request that this one goes on with (gone, another order), or of this one with which the earlier one goes
            on (put in); None: neither.
        here, there: the first differing token's text; here_from, there_from: the text from it on; None where a trace has no text.
    """

    kind: str
    again_tokens: int
    field: str | None = None
    earlier_field: str | None = None
    resumes: str | None = None
    here: str | None = None
    there: str | None = None
    here_from: str | None = None
    there_from: str | None = None


def explain(prompt: Prompt, earlier: Prompt, shared: int) -> Break:
    """What happens behind the first ``shared`` tokens, which the two have in common."""
    if shared >= len(earlier.ids) - MERGED:
        return Break(GOES_ON, 0)
    # Both end with what the template writes for the answer to begin: no order of the texts would save that.
    mine, theirs = prompt.ids[shared : prompt.body], earlier.ids[shared : earlier.body]
    kind, resumes = _kind(prompt, earlier, shared, mine, theirs)
    return Break(
        kind,
        again_tokens(mine, theirs),
        prompt.field_at(shared),
        earlier.field_at(shared),
        resumes,
        prompt.text_at(shared, 1),
        earlier.text_at(shared, 1),
        prompt.text_at(shared, SHOWN),
        earlier.text_at(shared, SHOWN),
    )


def _kind(prompt: Prompt, earlier: Prompt, shared: int, mine: Ids, theirs: Ids) -> tuple[str, str | None]:
    for kind, pattern in ((CLOCK_KIND, CLOCK), (ID_KIND, IDENTIFIER)):
        one, other = (_covering(pattern, side, shared) for side in (prompt, earlier))
        if one and other and one != other:
            return kind, None
    gone = find(theirs, mine[:RUN])  # what comes here stands further on there
    new = find(mine, theirs[:RUN])
    if gone is not None:
        return ORDER if new is not None else GONE, earlier.field_at(shared + gone)
    return (NEW, prompt.field_at(shared + new)) if new is not None else (OTHER, None)


def _covering(pattern: re.Pattern[str], side: Prompt, token: int) -> str | None:
    """What of a pattern covers the place where a token begins, or ends right before it."""
    if side.text is None or side.starts is None or token >= len(side.ids):
        return None
    place = int(side.starts[token])
    begin = max(0, place - AROUND)
    for found in pattern.finditer(side.text[begin : place + AROUND]):
        if found.start() <= place - begin < found.end():
            return found[0]
    return None


def find(ids: Ids, run: Ids) -> int | None:
    """Where a run of tokens begins in others; None if it does not stand there, or is too short to tell."""
    if len(run) < RUN // 2 or len(run) > len(ids):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(ids, len(run))
    for place in np.flatnonzero(windows[:, 0] == run[0]):
        if np.array_equal(windows[place], run):
            return int(place)
    return None


def again_tokens(mine: Ids, theirs: Ids) -> int:
    """Tokens of ``mine`` in runs of at least RUN that stand in ``theirs``, in whatever order; no more than there are of them."""
    if min(len(mine), len(theirs)) < RUN:
        return 0
    one, other = _runs(mine), _runs(theirs)
    return min(_covered(np.isin(one, other)), _covered(np.isin(other, one)))


def _covered(same: NDArray[np.bool_]) -> int:
    """Tokens in at least one of the runs that begin where ``same`` is true."""
    begins = np.flatnonzero(same)
    change = np.zeros(len(same) + RUN, np.int32)
    np.add.at(change, begins, 1)
    np.add.at(change, begins + RUN, -1)
    return int(np.count_nonzero(np.cumsum(change)))


def _runs(ids: Ids) -> NDArray[np.uint64]:
    """A hash of each run of RUN tokens."""
    values = ids.astype(np.uint64)
    total = np.zeros(len(ids) - RUN + 1, np.uint64)
    for i in range(RUN):
        total = total * np.uint64(0x9E3779B97F4A7C15) + values[i : i + len(total)] + np.uint64(1)
    return total
