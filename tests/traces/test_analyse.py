"""A trace without an engine: shares, breaks, and that nothing of its text gets out where it must not."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from small import chat, hashes, tokenizer_in, written

from coldprefix.errors import ColdprefixError
from coldprefix.figures import style
from coldprefix.job import common_prefix
from coldprefix.study.config import Config
from coldprefix.traces import figure
from coldprefix.traces.analyse import Analysis, Options, analyse, sums
from coldprefix.traces.cost import replayed
from coldprefix.traces.page import page
from coldprefix.traces.prompts import prompts_of
from coldprefix.traces.replay import SENT
from coldprefix.traces.tokens import Tokenizer

AGENT = ROOT / "docs" / "agent_trace.jsonl"
BREAKS = {4: ("clock", "messages[0].content"), 6: ("another order", "tools[0].function.name"), 8: ("gone", "messages[1].content")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_in(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def agent(folder: Path) -> Analysis:
    return analyse(AGENT, Options(sizes=(512, 100_000)), lambda: Tokenizer(folder))


# --- the agent's session of the repository ------------------------------------------------------------------------------------


def test_the_three_breaks_of_the_agent_s_session_are_named(agent: Analysis) -> None:
    rows = agent.rows.to_dicts()
    assert {row["line"]: (row["kind"], row["field"]) for row in rows if row["kind"] not in ("first", "goes on")} == BREAKS
    assert [row["kind"] for row in rows if row["line"] not in BREAKS] == ["first"] + ["goes on"] * 5
    clock, order, gone = (row for row in rows if row["line"] in BREAKS)
    assert (clock["there_from"][0], clock["here_from"][0]) == ("4", "5") and clock["earlier_line"] == 3
    assert order["resumes"] == "tools[1].function.name" and gone["resumes"] == "messages[9].content"
    total = sums(agent.rows)
    assert total["ideal"] + total["again"] + total["rest"] == total["prompt"]
    assert 0.15 < total["again"] / total["prompt"] < 0.3
    assert total["lru"][512] < total["lru"][100_000] == total["blocks"]


def test_the_session_is_what_its_script_makes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_agent_trace", ROOT / "workflow" / "scripts" / "make_agent_trace.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [json.loads(line) for line in AGENT.read_text().splitlines()] == module.requests()


def test_the_page_names_each_break_with_the_text_on_both_sides(agent: Analysis) -> None:
    text = page(AGENT, agent, [])
    assert "a clock in messages[0].content" in text
    assert "the same in another order in tools[0].function.name: it goes on with tools[1].function.name of line 5" in text
    assert "something of the earlier request is gone in messages[1].content: it goes on with messages[9].content of line 7" in text
    assert "`Can you `" in text and "`Do you h`" in text and "better prompts would save at most" in text


def test_without_text_nothing_of_it_is_in_any_output(folder: Path, tmp_path: Path, config: Config) -> None:
    words = set(re.findall(r"[a-z]{5,}", AGENT.read_text().lower())) - {
        "messages",
        "content",
        "function",
        "tools",
        "assistant",
        "another",
        "again",
    }
    words -= {"earlier", "order", "cache", "costs", "tokens", "prompt", "behind", "there", "which", "first", "description", "system"}
    assert {"beekeeping", "bookshop", "customer", "stock"} <= words

    def outputs(show: bool) -> str:
        found = analyse(AGENT, Options(sizes=(512,), show=show), lambda: Tokenizer(folder))
        drawing = figure.draw(found, [], config.figures)
        style.save(drawing, [tmp_path / f"f.{kind}" for kind in ("csv", "txt")], config.figures)
        table = found.rows.write_csv()
        return (table + page(AGENT, found, []) + (tmp_path / "f.csv").read_text() + (tmp_path / "f.txt").read_text()).lower()

    hidden, shown = outputs(False), outputs(True)
    assert "stock" in shown and "stock" not in hidden
    assert not [word for word in words if re.search(rf"\b{word}", hidden.replace("`", " ").replace("#", " ")) and word not in page_words()]
    codes = re.findall("#[0-9a-f]{12}", hidden)
    other = analyse(AGENT, Options(show=False), lambda: Tokenizer(folder)).rows.write_csv()
    assert codes and not set(codes) & set(re.findall("#[0-9a-f]{12}", other)), "a hash holds for one run: it cannot be looked up"


def page_words() -> set[str]:
    """Words that the page itself says."""
    source = "".join(
        (ROOT / "src" / "coldprefix" / "traces" / f"{name}.py").read_text() for name in ("page", "breaks", "figure", "reading")
    )
    return set(re.findall(r"[a-z]{5,}", source.lower()))


# --- hashes -------------------------------------------------------------------------------------------------------------------


def test_hashes_share_whole_blocks_and_caches_keep_what_fits(tmp_path: Path) -> None:
    file = written(tmp_path / "t", [hashes([1, 2, 3], 40), hashes([4, 5, 6], 40), hashes([1, 2, 3], 40), hashes([1, 2, 7, 8], 64)])
    found = analyse(file, Options(sizes=(32, 160)))
    assert found.known["block"] == 16 and not found.known["bounded"]
    assert found.rows["ideal_tokens"].to_list() == [0, 0, 32, 32] and found.rows["earlier_line"].to_list() == [None, None, 1, 3]
    assert found.rows["kind"].to_list() == ["first", "first", "goes on", "goes on"], "the last, shorter block is no block"
    assert found.rows["lru_32"].to_list() == [0, 0, 0, 32] and found.rows["lru_160"].to_list() == [0, 0, 32, 32]


def test_hashes_of_prefixes_cannot_tell_what_comes_again_and_those_of_blocks_can(tmp_path: Path) -> None:
    of_prefixes = analyse(written(tmp_path / "a", [hashes([1, 2, 3], 48), hashes([1, 4, 5], 48)]), Options(block=16))
    assert of_prefixes.rows["again_tokens"].to_list() == [None, None]
    assert "not in this trace" in page(Path("a"), of_prefixes, [])
    of_blocks = analyse(written(tmp_path / "b", [hashes([1, 2, 3], 48), hashes([1, 9, 3], 48)]), Options(block=16))
    assert of_blocks.rows["again_tokens"].to_list() == [0, 16] and of_blocks.rows["ideal_tokens"].to_list() == [0, 16]
    assert "better prompts would save at most | 16 | 16.7 %" in page(Path("b"), of_blocks, [])


def test_a_bounded_memory_says_that_what_it_found_is_a_lower_bound(tmp_path: Path) -> None:
    chance = random.Random(1)
    lines = [hashes([chance.randrange(40), *(1000 * i + j for j in range(8))], 144) for i in range(400)]
    file = written(tmp_path / "t", lines)
    all_of_it, some = analyse(file, Options()), analyse(file, Options(most=200))
    assert not all_of_it.known["bounded"] and some.known["bounded"]
    assert 0 < sums(some.rows)["ideal"] < sums(all_of_it.rows)["ideal"]
    assert "is a lower bound" in page(file, some, [])


def test_the_same_hash_gives_the_same_tokens(tmp_path: Path) -> None:
    file = written(tmp_path / "t", [hashes([1, 2], 40), hashes([1, 3, 4], 48), hashes([1, 2, 5], 41)])
    prompts, lines = prompts_of(file, Options(block=16), 10, 50_000, lambda: pytest.fail("no tokenizer is needed"))
    assert lines == [1, 2, 3] and [len(ids) for ids in prompts] == [40, 48, 41]
    shared = [common_prefix(prompts[0].tolist(), other.tolist()) for other in prompts[1:]]
    assert shared == [16, 32]


def test_the_tokens_of_a_million_prompts_are_counted(tmp_path: Path) -> None:
    rows = analyse(written(tmp_path / "t", [hashes([1], 16)] * 3), Options(block=16, sizes=(16,))).rows
    large = rows.with_columns(pl.lit(2**30, pl.Int32).alias(name) for name in ("prompt_tokens", "ideal_tokens", "lru_16"))
    total = sums(large)
    assert total["prompt"] == total["ideal"] == total["lru"][16] == 3 * 2**30


# --- texts and token ids --------------------------------------------------------------------------------------------------------


def test_token_ids_need_no_tokenizer_and_texts_do(tmp_path: Path, folder: Path) -> None:
    ids = list(range(100))
    found = analyse(written(tmp_path / "a", [{"token_ids": ids}, {"token_ids": ids[:50] + [7] + ids[51:]}, {"token_ids": ids}]), Options())
    assert found.rows["ideal_tokens"].to_list() == [0, 50, 99] and found.rows["again_tokens"].to_list() == [0, 49, 0]
    texts = written(tmp_path / "b", [{"text": "It is 10:00. Prices are in euros."}, {"text": "It is 10:01. Prices are in euros."}])
    (_, row) = analyse(texts, Options(), lambda: Tokenizer(folder)).rows.to_dicts()
    assert (row["kind"], row["field"], row["here"], row["there"], row["ideal_tokens"]) == ("clock", "text", "1", "0", 10)
    with pytest.raises(ColdprefixError, match="holds texts, so a model's tokenizer is needed"):
        analyse(texts, Options())


@pytest.mark.parametrize("bad", ["refuse", "skip"])
def test_a_request_that_is_longer_than_the_context_is_one_message(tmp_path: Path, bad: str) -> None:
    file = written(tmp_path / "t", [{"token_ids": [1] * 9}, {"token_ids": [1] * 20}, {"token_ids": [1] * 19}, {"token_ids": [99]}])
    options = Options(bad, 20, 50)  # type: ignore[arg-type]
    if bad == "refuse":
        with pytest.raises(ColdprefixError, match="line 2: its prompt does not fit the context: 20 tokens and one for the answer, of 20"):
            analyse(file, options)
        return
    found = analyse(file, options)
    assert found.rows["line"].to_list() == [1, 3]
    assert found.known["left_out"] == [
        "1 line left out, the first is 2: its prompt does not fit the context",
        "1 line left out, the first is 4: it holds token ids that the model has not",
    ]


def test_a_trace_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "t", [{"token_ids": [1] * 30}])
    with pytest.raises(ColdprefixError, match="no request that can be used: 1 line left out, the first is 1"):
        analyse(file, Options("skip", 20))


def test_an_earlier_request_that_is_long_gone_is_read_again(tmp_path: Path, folder: Path) -> None:
    start = "You sell books and nothing else. "
    lines = [chat(start + f"It is 10:0{i}. " + "Answer in a sentence. ", "hello") for i in range(2)]
    between = [chat(f"{i} other words") for i in range(300)]
    found = analyse(written(tmp_path / "t", [lines[0], "{", *between, lines[1]]), Options("skip"), lambda: Tokenizer(folder))
    last = found.rows.row(-1, named=True)
    assert (last["kind"], last["earlier_line"], last["field"]) == ("clock", 1, "messages[0].content")


# --- with a replay ------------------------------------------------------------------------------------------------------------


def sent(rows: pl.DataFrame, ms_per_token: float = 0.5) -> pl.DataFrame:
    """As an engine with one slot would answer, in three processes."""
    rng = np.random.default_rng(1)
    answers = []
    for process in range(3):
        for row in rows.to_dicts():
            computed = row["prompt_tokens"] - row["ideal_tokens"]
            ms = (5 + ms_per_token * computed) * float(rng.uniform(0.99, 1.01))
            answer = {"phase": "phase3a", "process": process, "engine_process": str(process), "line": row["line"]}
            answer |= {"prompt_tokens": row["prompt_tokens"], "cached_tokens": row["ideal_tokens"], "evaluated_tokens": computed}
            answers.append(answer | {"rule_tokens": row["ideal_tokens"], "ttft_ms": ms})
    answers[4] |= {"rejection": "reused 3 tokens, should be 0 to 2"}
    return pl.DataFrame(answers, {name: dtype for name, (dtype, _) in SENT.items()})


def test_a_break_costs_the_tokens_that_come_again_times_their_time(agent: Analysis, config: Config, tmp_path: Path) -> None:
    record = {
        "job": {"model": {"name": "m", "random_weights": True}, "threads": 2, "accelerator": "cpu"},
        "host": {"cpu": "a CPU", "gpus": []},
    }
    replay = replayed(sent(agent.rows), record)
    assert replay.ms_per_token.value == pytest.approx(0.5, rel=0.02) and replay.ms_per_token.low is not None
    assert (replay.sent, replay.rejected, replay.evicted, replay.processes) == (27, 1, 0, 3)
    text = page(AGENT, agent, [replay])
    clock = agent.rows.filter(kind="clock")["again_tokens"][0]
    (cost,) = re.findall(r"\| (\d+)\.\d \[[^]]*\] ms \|\n", next(line for line in text.splitlines(True) if "a clock in" in line))
    assert float(cost) == pytest.approx(0.5 * clock, rel=0.03)
    assert "1 of 27 answers rejected (1 x reused 3 tokens, should be 0 to 2)" in text.replace("\n", " ")
    drawing = figure.draw(agent, [replay], config.figures)
    parts = drawing.rows.select(total=pl.sum_horizontal("reused", "evicted", "again", "new"), prompt="prompt_tokens")
    assert (parts["total"] == parts["prompt"]).all() and "breaks named" in drawing.caption
    style.save(drawing, [tmp_path / "f.pdf"], config.figures)


def test_a_long_trace_is_drawn_as_means(tmp_path: Path, config: Config) -> None:
    file = written(tmp_path / "t", [hashes([i % 7, i], 40) for i in range(200)])
    drawing = figure.draw(analyse(file, Options(block=16, sizes=(64,))), [], config.figures)
    assert drawing.rows.height == 200 and "(means of neighbours)" in drawing.caption
    style.save(drawing, [tmp_path / "f.png"], config.figures)
