"""How long does a trace of a million requests take, and how much memory? A trace of block hashes is generated, as a public one is, and analysed.

.venv/bin/python benchmarks/trace_scale.py [REQUESTS] [--block 512] [--most BLOCKS] [--seed 1]

Sessions of several turns, which all begin with one of 200 system prompts: a turn repeats the blocks of the one before and adds some; one turn in
fifty begins with another prompt than before. Each takes part in a random order among the sessions that are open. Prints the seconds and the peak
of resident memory of the analysis, which runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from coldprefix.traces.analyse import Options, analyse, sums

OPEN_SESSIONS = 2000
SIZES = (1 << 20, 1 << 23, 1 << 26)


def lines(requests: int, block: int, seed: int) -> Iterator[str]:
    """Requests as Mooncake's traces have them."""
    rng = random.Random(seed)
    new = iter(range(10**12))
    systems = [[next(new) for _ in range(rng.randint(1, 12))] for _ in range(200)]
    sessions = [list(rng.choice(systems)) for _ in range(OPEN_SESSIONS)]
    for number in range(requests):
        i = rng.randrange(OPEN_SESSIONS)
        if rng.random() < 0.2:  # the session is over
            sessions[i] = list(rng.choice(systems))
        if rng.random() < 0.02:  # another prompt before the same history: with hashes of whole prefixes all are new
            sessions[i] = [next(new) for _ in sessions[i]]
        sessions[i] += [next(new) for _ in range(rng.choice((1, 1, 2, 3, 12)))]
        own = sessions[i]
        tokens = len(own) * block - rng.randrange(block)
        yield json.dumps({"timestamp": number * 40, "input_length": tokens, "output_length": rng.randint(1, 800), "hash_ids": own}) + "\n"


def analysed(file: Path, most: int) -> None:
    """Analyse it and say what that took."""
    began, cpu = time.monotonic(), time.process_time()
    found = analyse(file, Options(sizes=SIZES, most=most))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    total = sums(found.rows)
    print(
        f"{total['requests']} requests, {total['prompt']} tokens in blocks of {found.known['block']}: {seconds:.1f} s ({cpu:.1f} s of CPU), peak memory {peak:.0f} MiB"
    )
    bound = "at least " if found.known["bounded"] else ""
    limited = ", ".join(f"{reused / total['prompt']:.1%} with {size} tokens" for size, reused in total["lru"].items())
    print(f"an unlimited cache reuses {bound}{total['ideal'] / total['prompt']:.1%}; {limited}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--most", type=int, default=Options.most)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coldprefix-trace-") as folder:
        file = Path(folder) / "trace.jsonl"
        with open(file, "w") as out:
            out.writelines(lines(arguments.requests, arguments.block, arguments.seed))
        print(f"generated: {arguments.requests} lines, {file.stat().st_size / 2**20:.0f} MiB", flush=True)
        own = multiprocessing.get_context("spawn").Process(target=analysed, args=(file, arguments.most))
        own.start()
        own.join()
    sys.exit(own.exitcode)


if __name__ == "__main__":
    main()
