"""Ask a running server what its prefix cache does, in a minute or two, without Snakemake and without a configuration.

    python workflow/scripts/probe.py http://127.0.0.1:8080
    python workflow/scripts/probe.py URL --before a.txt --after b.txt      what that very edit costs; .json: messages of a chat
    python workflow/scripts/probe.py URL --json > probe.jsonl

Nothing is started, stopped or emptied. Exit status: 0; 1 with one message if it cannot be done; 3 if the server does not report how many
tokens it reused: then no time is verified. docs/probe.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pydantic import ValidationError

from coldprefix.engines.endpoint.settings import ENGINES, EndpointSettings
from coldprefix.errors import ColdprefixError
from coldprefix.probe.run import Asked, probe
from coldprefix.process.program import run_main
from coldprefix.strict import explain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://127.0.0.1:8080, https://host/path or unix:///path/to/socket")
    parser.add_argument("--before", type=Path, help="a prompt: text, or in a .json file the messages of a chat")
    parser.add_argument("--after", type=Path, help="the same, edited")
    parser.add_argument("--model", help="the name under which it serves the model; by default the first that it names")
    parser.add_argument("--engine", choices=ENGINES, help="what it is; by default that is found out")
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="the environment variable that holds its key")
    parser.add_argument("--remote", action="store_true", help="it may be on another machine")
    parser.add_argument("--json", action="store_true", help="say everything as JSON lines, each request with the columns of docs/data.md")
    parser.add_argument("--out", type=Path, help="an empty or new folder for the raw rows, as the study writes them")
    parser.add_argument("--rounds", type=int, default=5, help="trials of each kind (%(default)s), and one that does not count")
    parser.add_argument("--seconds", type=float, default=40, help="about so long the trials may take (%(default)s)")
    parser.add_argument(
        "--tokens", type=int, help="tokens of their prompts, at least 16; by default as many as fit the time and the context"
    )
    parser.add_argument("--timeout", type=float, default=120, help="longest wait for one answer, in seconds (%(default)s)")
    arguments = parser.parse_args()
    if (arguments.before is None) != (arguments.after is None):
        parser.error("give both --before and --after, or neither")
    if not 1 <= arguments.rounds <= 20 or not (arguments.tokens is None or arguments.tokens >= 16) or arguments.timeout <= 0:
        parser.error("write --rounds from 1 to 20, --tokens from 16 on, and a --timeout above 0")
    given = {"url": arguments.url, "model": arguments.model, "api_key_env": arguments.api_key_env, "engine": arguments.engine}
    try:
        settings = EndpointSettings.model_validate(given | {"remote": arguments.remote, "context_tokens": 16})
    except ValidationError as error:
        raise ColdprefixError("\n".join(explain(error, EndpointSettings))) from None
    return probe(
        Asked(
            settings,
            arguments.before,
            arguments.after,
            arguments.seconds,
            arguments.rounds,
            arguments.tokens,
            arguments.timeout,
            arguments.out,
            arguments.json,
        )
    )


if __name__ == "__main__":
    run_main(main)
