"""What a server says that it reused, in every form seen: only a whole number counts, and each other form is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from told_server import BLOCK, ToldServer

from coldprefix.data.raw import read_cell, read_record
from coldprefix.engines.contract import Completion
from coldprefix.engines.endpoint.session import EndpointSession, together
from coldprefix.engines.endpoint.settings import EndpointSettings
from coldprefix.errors import ColdprefixError
from coldprefix.measure.verify import rejection
from coldprefix.probe.edit import parting, read_prompt
from coldprefix.probe.looks import piece_of
from coldprefix.probe.run import UNVERIFIED, Asked, probe
from coldprefix.probe.trials import LENGTHS, QUESTION, choose


def details(value: Any) -> Callable[[int], dict[str, Any]]:
    return lambda _reused: {"prompt_tokens_details": {"cached_tokens": value}}


def reported(reused: int) -> dict[str, Any]:
    return {"prompt_tokens_details": {"cached_tokens": reused}}


def asked(url: str, **more: Any) -> Asked:
    return Asked(EndpointSettings(url=url), **({"rounds": 1, "tokens": 64} | more))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda _: {}, "usage.prompt_tokens_details is absent"),
        (lambda _: {"prompt_tokens_details": None}, "usage.prompt_tokens_details.cached_tokens is absent"),
        (lambda _: {"prompt_tokens_details": {}}, "usage.prompt_tokens_details.cached_tokens is absent"),
        (details(None), "cached_tokens is null"),
        (details("768"), "cached_tokens is the text '768'"),
        (details(768.0), "cached_tokens is 768.0, no whole number"),
        (details(True), "cached_tokens is the truth value True"),
        (details(-1), "cached_tokens is -1"),
    ],
)
def test_what_is_no_count_is_named(form: Callable[[int], dict[str, Any]], said: str) -> None:
    with ToldServer(form) as server:
        session = EndpointSession("told", EndpointSettings(url=server.url), "tokens", 20)
        done = session.complete(range(600, 632), 1, stream=False)
        streamed = session.complete(range(600, 632), 2, stream=True)
    assert done.cached_tokens is None and done.evaluated_tokens is None
    assert done.uncounted == streamed.uncounted and done.uncounted is not None and said in done.uncounted
    why = rejection(done, 32, None, 1, streamed=False)
    assert why == f"the engine did not report how many tokens it reused: {done.uncounted}"


def test_nothing_is_concluded_from_counts_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with ToldServer(details("768")) as server:
        assert probe(asked(server.url)) == UNVERIFIED
    text = capsys.readouterr().out
    assert "cached_tokens is the text '768'" in text and "TTFTs are UNVERIFIED" in text and "What it costs - UNVERIFIED" in text
    assert "granularity" not in text


def test_a_zero_is_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    """The server reports, and it reuses nothing: so a hit is none, and is left out."""
    with ToldServer(details(0)) as server:
        assert probe(asked(server.url)) == 0
    text = capsys.readouterr().out
    assert "reports reuse yes" in text and "nothing survived any of 8 edits" in text
    assert "1 trials of append left out; the first: reused 0 tokens, should be 1 to 64" in text


def test_a_pool_of_blocks_is_seen_as_one_and_its_rows_are_the_studys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ToldServer(reported) as server:
        assert probe(asked(server.url, as_json=True, out=tmp_path / "rows")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {line["kind"]: line for line in lines}
    assert found["granularity"]["tokens"] == BLOCK and found["reports"]["reports"] is True
    assert all(found["kept"]["reused"])
    folder, cell = tmp_path / "rows" / "probe" / "A32_B32" / "hit", "probe/A32_B32/hit"
    rows = read_cell(folder, cell, read_record(folder, cell))
    assert rows.height == sum(line["kind"] == "request" for line in lines) == 20
    streamed = rows.filter((rows["step"] == "stream") & ~rows["burn_in"])
    assert dict(zip(streamed["state"], streamed["cached_tokens"], strict=True)) == {"hit": 64, "substitute-1@50%": 32, "cold": 0}
    busy = {why for why in rows["rejection"] if why and not why.startswith("the first chunk carried")}  # of a machine that is busy
    assert not busy


def test_a_server_that_takes_text_only_is_sent_words_and_verifies_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Its counts are of tokens that nobody else has counted."""
    with ToldServer(reported, takes_ids=False) as server:
        assert probe(asked(server.url)) == UNVERIFIED
    text = capsys.readouterr().out
    assert "after a prompt of 64 words" in text and "NO: it takes text only" in text


def test_of_texts_the_servers_own_counts_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second round finds AFTER in its pool, which is not what the edit costs."""
    (tmp_path / "a").write_text(" ".join(f"w{i}" for i in range(90)))
    (tmp_path / "b").write_text(" ".join(f"w{i}" for i in range(70)) + " other" * 20)
    with ToldServer(reported, takes_ids=False) as server:
        assert probe(asked(server.url, before=tmp_path / "a", after=tmp_path / "b", rounds=2)) == 0
    text = capsys.readouterr().out
    assert "64 tokens survive, 26 are computed" in text and "(n = 1)" in text
    assert (
        "1 requests left out, or their times; the first: 80 tokens were reused, in the first round 64: the server remembers that round"
        in text
    )


def test_a_count_holds_where_two_tokens_share_a_chunk_and_only_its_time_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text(" ".join(f"w{i}" for i in range(90)))
    (tmp_path / "b").write_text(" ".join(f"w{i}" for i in range(70)) + " other" * 20)
    with ToldServer(reported, takes_ids=False, together=2) as server:
        assert probe(asked(server.url, before=tmp_path / "a", after=tmp_path / "b")) == 0
    text = capsys.readouterr().out
    assert "64 tokens survive, 26 are computed" in text and "n = 1" not in text
    assert "1 requests left out, or their times; the first: the first chunk carried 2 tokens" in text


def test_tokens_that_arrive_with_the_first_hide_its_time() -> None:
    done = Completion(0.0, 0.1, 9.0, [5.0, 5.0, 7.0], 8, 0, 8, generated_tokens=3, first_chunk_tokens=1)
    assert rejection(together(done), 8, None, 3, True) == "the first chunk carried 2 tokens, so the first token's time is unknown"
    assert rejection(together(replace(done, token_times_ms=[5.0, 6.0, 7.0])), 8, None, 3, True) is None


def test_rows_are_not_put_beside_others(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("here")
    with pytest.raises(ColdprefixError, match="is not empty; name another folder"):
        probe(asked("http://127.0.0.1:1", out=tmp_path))


@pytest.mark.parametrize(
    ("pairs", "tokens"),
    [
        ([(100, 100), (57, 57)], 1),
        ([(100, 96), (57, 48), (20, 16)], 16),
        ([(100, 0), (57, 0)], 0),
        ([(600, 512), (300, 256), (100, 0)], 256),
        ([(100, 96), (57, 16)], None),  # less than the whole blocks before the edit
        ([(100, 104), (57, 48)], None),  # more than there is in common
    ],
)
def test_the_size_of_pieces_is_what_all_edits_agree_on(pairs: list[tuple[int, int]], tokens: int | None) -> None:
    assert piece_of(pairs) == tokens


def test_prompts_and_rounds_fit_the_time_and_the_context() -> None:
    assert choose(0.01, 100_000, 40, 5) == (LENGTHS[0], 5)
    length, rounds = choose(5.0, 100_000, 40, 5)
    assert length in LENGTHS and 5.6 * length * 5.0 / 1e3 * (rounds + 1) <= 40
    assert choose(1000.0, 100_000, 40, 5) == (LENGTHS[-1], 1)  # never none
    assert choose(0.01, 600, 40, 5)[0] + QUESTION < 600


def test_texts_part_where_they_do() -> None:
    assert parting("one\ntwo x", "one\ntwo y") == "line 2, column 5: 'x' became 'y'"
    assert parting("one", "one more") == "line 1, column 4: its end became ' more'"


@pytest.mark.parametrize("text", ["", "[]", '[{"content": "no role"}]', "{", '{"messages": 3}'])
def test_a_file_that_holds_no_chat_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(ColdprefixError, match=r"a\.json"):
        read_prompt(file)
