"""Where a prompt breaks, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import chat, tokenizer_in

from coldprefix.errors import ColdprefixError
from coldprefix.job import common_prefix
from coldprefix.traces.breaks import Break, again_tokens, explain
from coldprefix.traces.reading import BadLine, Chat
from coldprefix.traces.tokens import Tokenizer

SYSTEM = "You are the assistant of a small bookshop. {} Answer in one or two sentences."
LONG = "Prices are in euros and include tax. Books can be sent back within thirty days. "
QWEN_LIKE = (
    "{%- for m in messages %}{{ '<' + m.role + '>' + (m.content.split('</think>')[-1] | trim) + eos_token }}{% endfor -%}"
    "{%- if tools %}{{ tools | tojson }}{% endif %}{%- if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(tokenizer_in(tmp_path))


def found(tokenizer: Tokenizer, earlier: dict[str, Any], now: dict[str, Any]) -> Break:
    one, other = (tokenizer.chat(Chat(each["messages"], each.get("tools", []))) for each in (earlier, now))
    return explain(other, one, common_prefix(one.ids.tolist(), other.ids.tolist()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("It is 09:59.", "It is 10:00."),
        ("Today is 2025-03-09.", "Today is 2025-03-10."),
        ("It is 2025-03-09T10:11:12Z.", "It is 2025-03-09T10:11:13Z."),
        ("It is Monday.", "It is Tuesday."),
        ("Now: 1736848800.", "Now: 1736848801."),
    ],
)
def test_a_clock_is_told(tokenizer: Tokenizer, before: str, after: str) -> None:
    seen = found(tokenizer, chat(SYSTEM.format(before) + LONG, "hello"), chat(SYSTEM.format(after) + LONG, "hello"))
    assert (seen.kind, seen.field, seen.earlier_field) == ("clock", "messages[0].content", "messages[0].content")
    assert seen.again_tokens > len(LONG), "what stands behind it comes again"
    assert seen.here and seen.there and seen.here != seen.there


def test_an_identifier_is_told(tokenizer: Tokenizer) -> None:
    one, other = "request 5f3a9c1e-0b1d-4c3e-9f00-aa11bb22cc33. ", "request 7f3a9c1e-0b1d-4c3e-9f00-aa11bb22cc33. "
    assert found(tokenizer, chat(one + LONG), chat(other + LONG)).kind == "identifier"


def test_something_gone_and_something_put_in_are_told_with_where_they_go_on(tokenizer: Tokenizer) -> None:
    turns = [
        "Do you have a book on beekeeping?",
        "Yes, we have three of them.",
        "Which is the cheapest one?",
        "The field book.",
        "And the best?",
    ]
    full, trimmed = chat(SYSTEM, *turns), chat(SYSTEM, *turns[2:])
    gone = found(tokenizer, full, trimmed)
    assert (gone.kind, gone.field, gone.resumes) == ("gone", "messages[1].content", "messages[3].content")
    put_in = found(tokenizer, trimmed, full)
    assert (put_in.kind, put_in.field, put_in.resumes) == ("put in", "messages[1].content", "messages[3].content")
    assert put_in.again_tokens == gone.again_tokens


def test_another_order_is_told(tokenizer: Tokenizer) -> None:
    tools = [
        {"type": "function", "function": {"name": f"{name}_of_a_book", "description": f"The {name} of a book."}}
        for name in ("price", "author")
    ]
    seen = found(tokenizer, chat(SYSTEM, "hello", tools=tools), chat(SYSTEM, "hello", tools=tools[::-1]))
    assert (seen.kind, seen.field, seen.resumes) == ("another order", "tools[0].function.name", "tools[1].function.name")


def test_another_question_is_no_break_that_costs(tokenizer: Tokenizer) -> None:
    seen = found(tokenizer, chat(SYSTEM, "Do you sell honey?"), chat(SYSTEM, "Which books are new?"))
    assert (seen.kind, seen.field, seen.again_tokens) == ("other text", "messages[1].content", 0)


def test_a_conversation_goes_on(tokenizer: Tokenizer) -> None:
    seen = found(tokenizer, chat(SYSTEM, "Do you sell honey?"), chat(SYSTEM, "Do you sell honey?", "No.", "Why?"))
    assert (seen.kind, seen.again_tokens) == ("goes on", 0)


def test_what_lies_between_two_texts_is_named_by_what_follows(tokenizer: Tokenizer) -> None:
    one = {"messages": [{"role": "user", "content": "hello"}]}
    other = {"messages": [{"role": "system", "content": "hello"}]}
    assert found(tokenizer, one, other).field == "template before messages[0].content"


def test_fields_are_found_in_a_template_that_trims_and_cuts(tmp_path: Path) -> None:
    own = Tokenizer(tokenizer_in(tmp_path, QWEN_LIKE))
    assert not own.own_template
    prompt = own.chat(
        Chat([{"role": "user", "content": "  hello\n"}, {"role": "assistant", "content": "<think>hm</think>you"}], [{"name": "x y"}])
    )
    assert prompt.text == '<user>hello<end><assistant>you<end>[{"name": "x y"}]<assistant>'
    shown = {field.name: prompt.text[field.start : field.end] for field in prompt.fields}
    assert shown["messages[0].content"] == "hello" and shown["tools[0].name"] == "x y"


def test_where_a_template_looks_into_a_text_its_place_is_unknown_and_not_wrong(tmp_path: Path) -> None:
    own = Tokenizer(tokenizer_in(tmp_path, "{% for m in messages %}{{ m.content | length }} letters: {{ m.content }}{% endfor %}"))
    prompt = own.chat(Chat([{"role": "user", "content": "hello"}], []))
    assert prompt.text == "5 letters: hello" and prompt.field_at(11) is None


def test_parameters_have_no_names_of_their_own(tokenizer: Tokenizer) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"secret": {"description": "a word"}}}}}
    names = {field.name for field in tokenizer.chat(Chat(chat("s")["messages"], [tool])).fields}
    assert names == {"messages[0].content", "tools[0].function.name", "tools[0].function.parameters"}


def test_a_template_cannot_run_what_it_likes_and_may_refuse(tmp_path: Path) -> None:
    for template in (
        "{{ ''.__class__.__mro__ }}{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception('no system role') }}",
    ):
        own = Tokenizer(tokenizer_in(tmp_path, template))
        with pytest.raises(BadLine, match="the model's chat template refuses it"):
            own.chat(Chat(chat("s")["messages"], []))
    with pytest.raises(ColdprefixError, match="cannot read the chat template"):
        Tokenizer(tokenizer_in(tmp_path, "{% if %}"))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ColdprefixError, match=r"has no tokenizer\.json"):
        Tokenizer(tmp_path)


def test_what_comes_again_is_counted_in_runs() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 1000, (2, 100)).astype(np.int32)
    assert again_tokens(one, other) == 0
    moved = np.concatenate([other[60:90], one[:15], other[10:26], one[90:]])
    assert again_tokens(moved, np.concatenate([other, one[:15]])) == 30 + 16, "15 tokens are no run"
