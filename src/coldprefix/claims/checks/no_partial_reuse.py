"""Does an engine reuse nothing of a cached prompt unless the new one is the same?"""

from __future__ import annotations

import math

import polars as pl

from coldprefix.analysis.statistics import estimate
from coldprefix.claims.checks import Check
from coldprefix.claims.data import ENOUGH, CellName, Data
from coldprefix.claims.parts import Phases, effect_of, median_of
from coldprefix.claims.verdict import Outcome, Part, between, combine
from coldprefix.strict import Strict


class Parameters(Strict):
    """Hits extend the warm prompt: what they reuse of it is partial reuse."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()


def no_partial_reuse(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Share of [A, B] that the different, longer prompt [A, B, Q] reuses: at most the threshold, everywhere.

    Rejected trials count: a trial is valid as a hit because of this very reuse, so valid ones alone could not support the claim.
    """
    parts = [_part(hit, threshold, data) for hit in data.cells(p.phases, p.variant, p.configurations, "hit")]
    lead = "A hit is not the prompt that the cache holds, and reuses this share of [A, B], which it begins with"
    extra = [Part("prefix", text="true is that only a prefix is reused, from position 0")] if any(q.agrees is False for q in parts) else []
    return combine(parts, threshold, lead, "%", extra=extra)


def _part(hit: CellName, threshold: float, data: Data) -> Part:
    column, warm = "stream_cached_tokens", "warmup_prompt_tokens"
    used = data.counted(hit).drop_nulls([column, warm]).filter(pl.col("query_prompt_tokens") > pl.col(warm))
    if len(used) < ENOUGH:
        missing = data.sample(hit, column, unverified=True).missing
        return Part(hit.phase, missing=missing or f"{hit} has {len(used)} hits that are longer than the warm prompt")
    effect = effect_of(estimate((100 * used[column] / used[warm]).to_numpy()))
    after, length, reused, whole = (median_of(used[c]) for c in ("rewarm_cached_tokens", warm, column, "query_prompt_tokens"))
    text = f"{hit.configuration}: {reused:.0f} of {whole:.0f} tokens"
    if after is not None:
        text += f", and {after:.0f} of {length:.0f} by the re-warm, when the slot held a longer prompt"
    rejected = used["rejection"].is_not_null().sum()
    text += f", {rejected} of {len(used)} trials rejected" if rejected else ""
    return Part(hit.phase, between(effect, -math.inf, threshold), effect, text, (str(hit),), len(used))


CHECK = Check(parameters=Parameters, unit="%", run=no_partial_reuse)
