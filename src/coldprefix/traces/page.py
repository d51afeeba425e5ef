"""A trace's analysis as Markdown: shares of the prefill, breaks by their cause, and what a replay has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from coldprefix.figures import captions
from coldprefix.figures.style import backend_title
from coldprefix.traces import breaks
from coldprefix.traces.analyse import Analysis, sums
from coldprefix.traces.cost import Replayed
from coldprefix.traces.reading import TITLES

MOST_GROUPS, MOST_BREAKS = 12, 20
NO_BREAK = (breaks.FIRST, breaks.GOES_ON)


def page(file: Path, analysis: Analysis, replays: Sequence[Replayed]) -> str:
    """All of it."""
    total = sums(analysis.rows)
    lines = [f"# What is reused of {file.name}", "", _about(analysis, total), ""]
    lines += [f"- {text}" for text in analysis.known["left_out"]] + [""] * bool(analysis.known["left_out"])
    lines += ["## Of all prompt tokens", "", *_shares(analysis, total), "", *_caches(analysis, total), ""]
    lines += _breaks(analysis, replays)
    lines += _replays(analysis, replays, total)
    return "\n".join(lines).rstrip() + "\n"


def _about(analysis: Analysis, total: Mapping[str, Any]) -> str:
    known = analysis.known
    text = f"{total['requests']} requests, each {TITLES[known['form']]}, of {total['prompt']} prompt tokens."
    if known["own_template"]:
        text += " The model has no chat template of its own: they are written in ChatML."
    if known["bounded"]:
        text += " More prefixes came than are remembered: what an unlimited cache reuses is a lower bound."
    return text


def share(tokens: float, total: float) -> str:
    """ "12.3 %"."""
    return f"{100 * tokens / total:.1f} %" if total else "-"


def _shares(analysis: Analysis, total: Mapping[str, Any]) -> list[str]:
    again = total["again"]
    saved = "come again behind a break: better prompts would save at most"
    rows = [("an unlimited cache reuses", total["ideal"]), (saved, again), ("new: cannot be saved", total["rest"])]
    lines = ["| | tokens | share |", "|---|---|---|"]
    if again is None:
        rows = [rows[0], ("the rest: new, or behind a break", total["rest"])]
    lines += [f"| {name} | {tokens} | {share(tokens, total['prompt'])} |" for name, tokens in rows]
    if again is None:
        lines += [
            "",
            "No hash came behind two prefixes, so these hashes depend on all that is before them: what would be saved by better prompts is",
        ]
        lines += ["not in this trace."]
    return lines


def _caches(analysis: Analysis, total: Mapping[str, Any]) -> list[str]:
    lines = [
        f"| a cache of so many tokens, in blocks of {analysis.known['block']} | reuses | a larger one would reuse more |",
        "|---|---|---|",
    ]
    for size, reused in total["lru"].items():
        lines.append(f"| {size} | {share(reused, total['prompt'])} | {share(total['blocks'] - reused, total['prompt'])} |")
    rounded = total["ideal"] - total["blocks"]
    return lines + [
        "",
        f"Least recently used blocks are dropped first. Whole blocks cost {share(rounded, total['prompt'])} of the prompt tokens, at any size.",
    ]


def named(row: Mapping[str, Any]) -> str:
    """A break in words: "a clock in messages[0].content"."""
    text = breaks.TITLES[row["kind"]]
    where = f" in {row['field']}" if row["field"] else ""
    resumes, line = row["resumes"], row["earlier_line"]
    if not resumes or row["kind"] not in (breaks.GONE, breaks.NEW, breaks.ORDER):
        return text + where
    of = "here" if row["kind"] == breaks.NEW else f"of line {line}"
    return f"{text}{where}: it goes on with {resumes} {of}"


def _breaks(analysis: Analysis, replays: Sequence[Replayed]) -> list[str]:
    broken = analysis.rows.filter(~pl.col("kind").is_in(NO_BREAK))
    if analysis.known["form"] == "hashes":
        return [f"{broken.height} requests part from the earlier one that they share most with; hashes do not say why.", ""]
    costly = broken.filter(pl.col("again_tokens") > 0).sort("again_tokens", "line", descending=[True, False])
    lines = ["## Where prompts break", ""]
    if costly.is_empty():
        return [*lines, "Nowhere: behind no break comes anything again that an earlier request had.", ""]
    groups = costly.group_by("kind", "field", maintain_order=True).agg(n=pl.len(), again=pl.col("again_tokens").cast(pl.Int64).sum())
    groups = groups.sort("again", descending=True)
    lines += ["| why | where | breaks | tokens that come again |", "|---|---|---|---|"]
    lines += [
        f"| {breaks.TITLES[g['kind']]} | {g['field'] or '-'} | {g['n']} | {g['again']} |" for g in groups.head(MOST_GROUPS).to_dicts()
    ]
    lines += [f"| {groups.height - MOST_GROUPS} more | | | |"] * (groups.height > MOST_GROUPS)
    shown = next((replay for replay in replays if replay.ms_per_token.value is not None), None)
    cost = f"costs on {backend_title(shown.phase)}" if shown else "costs"
    lines += ["", f"| line | shares | of | break | here | there | come again | {cost} |", "|---|---|---|---|---|---|---|---|"]
    for row in costly.head(MOST_BREAKS).to_dicts():
        cells = [row["line"], f"{row['ideal_tokens']} with line {row['earlier_line']}", row["prompt_tokens"], named(row)]
        cells += [quoted(row["here_from"]), quoted(row["there_from"]), row["again_tokens"], milliseconds(shown, row["again_tokens"])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if costly.height > MOST_BREAKS:
        lines += ["", f"{costly.height - MOST_BREAKS} more are in requests.parquet."]
    other = broken.height - costly.height
    lines += ["", f"{other} other requests part from an earlier one before something new; behind that nothing comes again."] * bool(other)
    return [*lines, ""]


def quoted(text: str | None) -> str:
    """A trace's text in a cell of a table: one line, and no markup."""
    if text is None:
        return "-"
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode() for letter in text)
    return "`" + shown.replace("`", "'").replace("|", "\\|") + "`"


def milliseconds(replay: Replayed | None, tokens: float) -> str:
    """ "12.3 [11.0, 13.6] ms"."""
    found = replay.ms(tokens) if replay else None
    if found is None:
        return "not measured"
    value, low, high = found
    return f"{value:.1f} ms" if low == high else f"{value:.1f} [{low:.1f}, {high:.1f}] ms"


def _replays(analysis: Analysis, replays: Sequence[Replayed], total: Mapping[str, Any]) -> list[str]:
    if not replays:
        return []
    lines = ["## Replayed", ""]
    for replay in replays:
        lines += [*_replay(analysis, replay), ""]
    lines += [
        "Sent in order, one after the other, one token generated: queues and answers are not in it, nor what an engine reuses of its own answers."
    ]
    lines += [
        "A break costs the tokens that come again, times the time of a computed token: what would be saved if they came first and were cached."
    ]
    lines += [f"Square brackets: {captions.INTERVAL}."]
    return lines


def _replay(analysis: Analysis, replay: Replayed) -> list[str]:
    weights, machine = captions.where([replay.record])
    own = replay.requests.join(analysis.rows.select("line", "ideal_tokens", "again_tokens"), on="line")
    prompt, cached, computed = (float(own[name].sum()) for name in ("prompt_tokens", "cached_tokens", "evaluated_tokens"))
    lost = float((own["ideal_tokens"] - own["cached_tokens"]).clip(lower_bound=0).sum())
    lines = [
        f"**{backend_title(replay.phase)}**: {weights}; {machine}. {own.height} requests, {replay.processes} engine processes; {replay.rejected} of"
    ]
    lines[0] += f" {replay.sent} answers rejected{_reasons(replay.reasons)}."
    if own.is_empty():
        return lines
    each = replay.ms_per_token
    slope = (
        "not measured" if each.value is None else f"{each.value:.3f}" + (f" [{each.low:.3f}, {each.high:.3f}]" if each.low else "") + " ms"
    )
    again = float(own["again_tokens"].cast(pl.Float64).sum()) if own["again_tokens"].null_count() == 0 else None
    lines += ["", "| | tokens | share | time |", "|---|---|---|---|"]
    rows = [("reused, as the engine says", cached), ("computed", computed), ("of these, an unlimited cache would have reused", lost)]
    rows += [("of these, come again behind a break", again)] if again is not None else []
    for i, (name, tokens) in enumerate(rows):
        cost = milliseconds(replay, tokens) if i else "-"
        lines.append(f"| {name} | {tokens:.0f} | {share(tokens, prompt)} | {cost} |")
    times = own["ttft_ms"].to_list()
    lines += [
        "",
        f"A computed token takes {slope}; the time to first token is {sum(times):.0f} ms in all, in the median {median(times):.1f} ms.",
    ]
    if replay.evicted:
        lines[-1] += f" {replay.evicted} answers reused less than the rule of the cache: their prompts were evicted."
    if replay.foreign_cpu is not None:
        lines[-1] += f" Others used {100 * replay.foreign_cpu:.0f} % of the machine meanwhile."
    return lines


def _reasons(reasons: Mapping[str, int]) -> str:
    return f" ({'; '.join(f'{count} x {why}' for why, count in list(reasons.items())[:3])})" if reasons else ""
