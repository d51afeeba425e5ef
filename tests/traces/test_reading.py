"""What a trace's lines may be, and what is said of those that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import chat, hashes, written

from coldprefix.errors import ColdprefixError
from coldprefix.traces.reading import Blocks, Chat, Trace, block_of, form_of

MOONCAKE = {
    "timestamp": 27482,
    "input_length": 6955,
    "output_length": 52,
    "hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2353, 2354],
}
BAILIAN = {"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 33, "output_length": 132, "type": "text", "turn": 2}


@pytest.mark.parametrize(
    ("entry", "form", "prompt"),
    [
        (MOONCAKE, "hashes", Blocks(MOONCAKE["hash_ids"], 6955)),  # type: ignore[arg-type]
        (BAILIAN | {"hash_ids": [1089, 1090, 6326]}, "hashes", Blocks([1089, 1090, 6326], 33)),
        ({"text": "a"}, "text", "a"),
        ({"model": "m", "prompt": "a", "max_tokens": 3}, "text", "a"),
        ({"token_ids": [1, 2]}, "tokens", [1, 2]),
        ({"prompt_token_ids": [1, 2]}, "tokens", [1, 2]),
        ({"prompt": [1, 2]}, "tokens", [1, 2]),
        (chat("s", "u"), "chat", Chat([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], [])),
        ({"custom_id": "1", "body": chat("s")}, "chat", Chat([{"role": "system", "content": "s"}], [])),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            "chat",
            Chat([{"role": "user", "content": "a\nb"}], []),
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]}]},
            "chat",
            Chat([{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}], []),
        ),
    ],
)
def test_each_form_is_told_by_its_fields(tmp_path: Path, entry: dict[str, Any], form: str, prompt: Any) -> None:
    file = written(tmp_path / "t.jsonl", [entry])
    (request,) = Trace(file)
    assert (form_of(file), request.prompt, request.line) == (form, prompt, 1)
    assert request.at == entry.get("timestamp")


GOOD = chat("You sell books.", "hello")
WRONG: list[tuple[Any, str]] = [
    ("{", "it is not JSON"),
    ("[" * 100_000, "it is not JSON"),
    ("\xff", "it is not JSON"),
    ("[1]", "it is no JSON object"),
    ({"text": "a"}, "forms are mixed: it holds a text, the trace began with a chat request"),
    ({"question": "secret"}, "it holds no prompt"),
    ({**GOOD, "hash_ids": [1]}, "it holds more than one prompt: block hashes and a chat request"),
    ({"messages": []}, "messages is no list of messages"),
    ({"messages": [{"role": "user", "content": "secret"}, {"content": "secret"}]}, "messages[1] has no role"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content is no text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "secret"}]}]},
        "messages[0].content holds something that is no",
    ),
    ({**GOOD, "tools": ["secret"]}, "tools is no list of tools"),
    ({**GOOD, "timestamp": "secret"}, "timestamp is not a number"),
    ({**GOOD, "timestamp": 1.5}, "its clock runs backwards: 1.5 after 2"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_a_line_that_cannot_be_used_is_one_message_with_its_number(tmp_path: Path, wrong: Any, message: str) -> None:
    file = written(tmp_path / "t.jsonl", [{**GOOD, "timestamp": 2}, "", wrong, {**GOOD, "timestamp": 3}])
    with pytest.raises(ColdprefixError) as caught:
        list(Trace(file))
    text = str(caught.value)
    assert text.startswith(f"{file}, line 3: {message}") and "trace_bad: skip" in text and "secret" not in text
    trace = Trace(file, "skip")
    assert [request.line for request in trace] == [1, 4], "the rest is kept"
    (told,) = trace.left_out()
    assert told.startswith("1 line left out, the first is 3: ") and "secret" not in told


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (hashes([1], 0), "input_length is not a number"),
        (hashes([1, -2], 40), "neither a number"),
        (hashes([1, "a"], 40), "neither a number"),
        (hashes([1, True], 40), "neither a number"),
        ({"input_length": 4, "hash_ids": "1"}, "hash_ids is no list"),
        ({"token_ids": []}, "token ids are not all numbers"),
        ({"token_ids": [1, 2.5]}, "token ids are not all numbers"),
        ({"text": ""}, "its text is empty"),
    ],
)
def test_a_prompt_that_is_none_is_refused(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ColdprefixError, match=message):
        list(Trace(written(tmp_path / "t.jsonl", [entry])))


def test_one_wrong_clock_costs_one_line(tmp_path: Path) -> None:
    times = [1, 2, 1e9, 3, 4]
    trace = Trace(written(tmp_path / "t.jsonl", [hashes([1], 16, at) for at in times]), "skip")
    assert [request.at for request in trace] == [1, 2, 1e9, 4]


@pytest.mark.parametrize("text", ["", "\n\n", "nothing\n"])
def test_a_file_without_a_request_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(text)
    with pytest.raises(ColdprefixError, match="holds no request"):
        form_of(file)
    with pytest.raises(ColdprefixError, match=r"cannot read .*No such file"):
        form_of(tmp_path / "other")


def test_the_size_of_a_block_is_read_from_the_lengths(tmp_path: Path) -> None:
    assert block_of(written(tmp_path / "a", [MOONCAKE])) == 512
    assert block_of(written(tmp_path / "b", [hashes([1, 2, 3], 33), hashes([1, 2], 32), hashes([1] * 9, 3), hashes([1] * 4, 63)])) == 16
    whole_blocks_only = [hashes(list(range(n // 64)), n) for n in (63, 64, 200, 1000)]
    assert block_of(written(tmp_path / "c", whole_blocks_only)) == 64
    with pytest.raises(ColdprefixError, match="could have 16 or 32"):
        block_of(written(tmp_path / "d", [hashes([1], 16), hashes([1], 14)]))
    with pytest.raises(ColdprefixError, match="fit no size of a block"):
        block_of(written(tmp_path / "e", [hashes([1] * n, 3) for n in (9, 10, 11)]))


def test_a_request_is_read_again_by_its_number(tmp_path: Path) -> None:
    trace = Trace(written(tmp_path / "t.jsonl", [chat("a"), "{", {"body": chat("b")}]), "skip")
    first = list(trace)
    assert [trace.again(i).prompt for i in range(2)] == [request.prompt for request in first]
