"""What the workflow must know of a trace before anything runs: its form, and so what is needed for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coldprefix.errors import ColdprefixError
from coldprefix.study import registry
from coldprefix.study.plan import Plan
from coldprefix.traces.reading import form_of


@dataclass(frozen=True)
class Shape:
    """Of a trace in a plan.

    Attributes:
        models: records of the models whose tokenizers are needed.
        phases: those that replay it.
        arguments, replay_arguments: of the programs `trace.py` and `replay_trace.py`.
    """

    models: list[str]
    phases: list[str]
    arguments: str
    replay_arguments: str


def of(plan: Plan) -> Shape:
    """Raises ColdprefixError: the file cannot be read, holds no request, or needs a tokenizer that the model has not; begins with the key."""
    config = plan.config
    try:
        form = form_of(Path(str(config.trace)))
    except ColdprefixError as error:
        raise ColdprefixError(f"trace: {error}") from None
    phases = [phase for phase in config.phases if phase in plan.preflights] if config.trace_replay else []
    jobs = [plan.preflights[phase] for phase in phases]
    named = list(dict.fromkeys([config.model, *(job.model.name for job in jobs)])) if form in ("chat", "text") else []
    if lacking := [name for name in named if "safetensors" not in config.models[name].offers]:
        raise ColdprefixError(
            f"trace: {config.trace} holds {form}s, which need a tokenizer.json, and the model {lacking[0]} is a GGUF file; name a folder or a model "
            "of the Hub, or write token ids into the trace"
        )
    contexts = [registry.engine(job.engine).settings.model_validate(job.settings).context_of(job.model.positions) for job in jobs]
    words = ["--bad", config.trace_bad]
    if config.trace_block_tokens != "auto":
        words += ["--block", str(config.trace_block_tokens)]
    own = [*words, "--sizes", *map(str, config.trace_cache_tokens)]
    own += [] if config.trace_text else ["--no-text"]
    own += ["--model", config.model] if named else []
    if form != "hashes":  # a trace of hashes is often of a larger model, and is analysed as it is
        own += ["--context", str(min(contexts, default=config.models[config.model].positions))]
    replayed = [*words, "--processes", str(config.trace_processes), "--most", str(config.trace_replay)]
    return Shape([f"results/setup/models/{name}.json" for name in named], phases, " ".join(own), " ".join(replayed))
