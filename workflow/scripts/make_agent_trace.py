"""Write docs/agent_trace.jsonl: an agent's session of nine requests with three breaks, all made up.

python make_agent_trace.py docs/agent_trace.jsonl

Line 4: the clock in the system prompt goes on. Line 6: the tools come in another order. Line 8: the history is trimmed. All other lines go on where the
one before ends. It fits 1024 tokens of GPT-2's tokenizer.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.files import write_text
from coldprefix.process.program import run_main

SYSTEM = (
    "You are the assistant of a small bookshop. It is {clock}. Answer in one or two sentences, and look things up before you answer. "
    "Never promise a date of delivery that the tools do not give. If a customer is angry, stay kind and offer to call back. "
    "Prices are in euros and include tax. Books can be sent back within thirty days, other things within fourteen."
)
TOOLS = {
    "find_book": ("Find books by title, author or subject.", "query"),
    "stock_of": ("How many copies of a book are in the shop.", "number"),
    "order_book": ("Order a book from the publisher and tell when it comes.", "number"),
}
TURNS = [
    ("Do you have a book on beekeeping?", "Yes, we have three: a guide for the first year, a field book, and a history."),
    ("Which of them is the cheapest?", "The field book, at 12 euros. The guide is 24 euros, the history 31."),
    ("Is the guide in the shop now?", "Two copies of the guide are on the shelf by the window."),
    ("Please keep one for me until tomorrow.", "Done: one copy is kept under your name until closing time tomorrow."),
    ("Can you order a second one as a present?", "It is ordered. The publisher says that it comes within the week."),
    ("Do you wrap presents?", "We do, in blue or in red paper, at no cost."),
    ("Blue, please. And do you sell honey?", "Blue it is. We sell books only, but the market next door has honey."),
    ("What does the history of beekeeping cost again?", "The history costs 31 euros."),
    ("Then add it to my order.", "It is added: the guide, its second copy and the history."),
]


def requests() -> list[dict[str, Any]]:
    """Nine chat requests, in order."""
    clock, order, first = "Monday, 09:14", list(TOOLS), 0
    found = []
    for i in range(len(TURNS)):
        if i == 3:
            clock = "Monday, 09:15"
        if i == 5:
            order = [order[1], order[0], order[2]]
        if i == 7:
            first = 4
        messages = [{"role": "system", "content": SYSTEM.format(clock=clock)}]
        for asked, answered in TURNS[first:i]:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        messages.append({"role": "user", "content": TURNS[i][0]})
        found.append({"timestamp": 20 * i, "messages": messages, "tools": [tool(name) for name in order]})
    return found


def tool(name: str) -> dict[str, Any]:
    """A tool as OpenAI's API has it."""
    description, parameter = TOOLS[name]
    parameters = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    write_text(arguments.out, "".join(json.dumps(request) + "\n" for request in requests()))


if __name__ == "__main__":
    run_main(main)
