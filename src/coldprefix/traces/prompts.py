"""The prompts of a trace as token ids, to be sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from coldprefix.errors import ColdprefixError
from coldprefix.measure.prompts import token_range
from coldprefix.traces.analyse import Options, check, prompt_of
from coldprefix.traces.reading import BadLine, Blocks, Trace, block_of, form_of
from coldprefix.traces.tokens import Prompt, Tokenizer
from coldprefix.traces.tree import Ids


def prompts_of(file: Path, options: Options, most: int, vocabulary: int, tokenizer: Callable[[], Tokenizer]) -> tuple[list[Ids], list[int]]:
    """The first ``most`` prompts of a trace that can be used, and their lines.

    Of hashes, token ids are drawn: the same hash gives the same tokens.

    Raises:
        ColdprefixError: as of `analyse`.
    """
    form = form_of(file)
    trace = Trace(file, options.bad)
    block = options.block or (block_of(file) if form == "hashes" else 0)
    own = tokenizer() if form in ("chat", "text") else None
    prompts, lines = list[Ids](), list[int]()
    for request in trace:
        if len(prompts) == most:
            break
        try:
            blocks = request.prompt
            prompt = Prompt(drawn(blocks, block, vocabulary, options)) if isinstance(blocks, Blocks) else prompt_of(request, own)
            check(prompt, options)
        except BadLine as error:
            trace.leave_out(request.line, str(error))
            continue
        prompts.append(prompt.ids)
        lines.append(request.line)
    if not prompts:
        raise ColdprefixError(f"{file} holds no request that can be sent: {'; '.join(trace.left_out())}")
    return prompts, lines


def drawn(prompt: Blocks, block: int, vocabulary: int, options: Options) -> Ids:
    """Token ids for a prompt of hashes: of each block drawn from its hash, behind the last hash from the place."""
    if options.context is not None and prompt.tokens >= options.context:
        return np.zeros(prompt.tokens, np.int32)  # too long: it will not be sent
    tokens = token_range(vocabulary)
    blocks = -(-prompt.tokens // block)
    seeds = [[1, name] for name in prompt.hashes] + [[2, *prompt.hashes[-1:], place] for place in range(len(prompt.hashes), blocks)]
    ids = [np.random.default_rng(seed).integers(tokens.start, tokens.stop, block) for seed in seeds[:blocks]]
    return np.concatenate(ids)[: prompt.tokens].astype(np.int32)
