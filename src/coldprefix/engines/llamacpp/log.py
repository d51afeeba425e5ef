"""What llama.cpp says is in force: its log, and the libraries that a process has mapped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of_file

# The binding's commit and the library's must be the same: its ctypes structures assume it. Both come from one sdist.
LIBRARIES = re.compile(r"lib(llama|ggml)[\w-]*\.so")


NUMBER = r"[\d.]+"

_sha256 = cache(sha256_of_file)


def loaded_libraries(pid: int | str) -> dict[str, str]:
    """sha256 of each llama.cpp library that a process has mapped, by file name, from /proc/PID/maps.

    Raises:
        ColdprefixError: two libraries of the same name from different folders.
    """
    paths = {Path(line.split(maxsplit=5)[5]) for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if ".so" in line}
    found: dict[str, Path] = {}
    for path in sorted(p for p in paths if LIBRARIES.match(p.name)):
        name = re.sub(r"\.so.*", ".so", path.name)
        if name in found:
            raise ColdprefixError(f"process {pid} has loaded {name} twice: {found[name]} and {path}")
        found[name] = path
    # Only these two compute: what else a process maps (server code, mtmd) differs between the interfaces by design.
    computing = {"libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu.so", "libggml-cuda.so"}
    return {name: _sha256(path) for name, path in found.items() if name in computing}


def settings_from_log(log: str) -> dict[str, Any]:
    """Read what libllama prints when it makes a context (src/llama-context.cpp, src/llama-kv-cache.cpp, src/llama-memory-recurrent.cpp).

    `kv_bytes_per_token` is what a token takes in all caches together, `state_bytes` what the recurrent layers keep of a whole prompt, and
    `window_tokens` the sliding window of layers that cache no more than it needs; 0: no such layers.

    Raises:
        ColdprefixError: the lines are not there, as after an upgrade that changed them.
    """

    model = log

    def last(pattern: str, what: str) -> re.Match[str]:
        found = list(re.finditer(pattern, log))
        if not found:
            raise ColdprefixError(
                f"llama.cpp's log does not say {what}; is its disk full, or has its wording changed? Looked for: {pattern}"
            )
        return found[-1]

    # llama-server may make a trial context first, so only what the last one says counts.
    log = log[max(0, log.rfind("llama_context: constructing llama_context")) :]
    own = rf"llama_kv_cache: size =\s*({NUMBER}) MiB \(\s*(\d+) cells,.*?\d+/(\d+) seqs\), K \((\w+)\).*?V \((\w+)\)"
    caches = re.findall(own, log)  # one for each kind of layers; a model of states alone has none
    states = re.findall(rf"llama_memory_recurrent: size =\s*({NUMBER}) MiB", log)
    if not caches and not states:
        last(own, "the size of its caches")
    offloaded = re.findall(r"offloaded (\d+)/(\d+) layers to GPU", model)
    window = re.search(r"n_swa\s*= (\d+)", model)
    small = "creating     SWA KV cache" in log and "using full-size SWA cache" not in log
    return {
        "context_tokens": int(last(r"n_ctx_seq\s*= (\d+)", "n_ctx_seq")[1]),
        "batch_tokens": int(last(r"n_batch\s*= (\d+)", "n_batch")[1]),
        "ubatch_tokens": int(last(r"n_ubatch\s*= (\d+)", "n_ubatch")[1]),
        "slots": int(last(r"n_seq_max\s*= (\d+)", "n_seq_max")[1]),
        "kv_unified": last(r"kv_unified\s*= (\w+)", "kv_unified")[1] == "true",
        "flash_attention": last(r"flash_attn\s*= (\w+)", "flash_attn")[1],
        "kv_dtype": ", ".join(dict.fromkeys(f"{k}/{v}" for *_, k, v in caches)) or "none",
        "kv_bytes_per_token": round(sum(float(mib) * 2**20 / (int(cells) * int(streams)) for mib, cells, streams, *_ in caches)),
        "state_bytes": round(sum(float(mib) * 2**20 for mib in states)),
        "window_tokens": int(window[1]) if window and small else 0,
        "recurrent": bool(states),
        "gpu_layers": f"{offloaded[-1][0]}/{offloaded[-1][1]}" if offloaded else "0",
    }


def slot_tokens(cells: int, log: str) -> int:
    """Tokens that llama-server allows in a slot: its cells, which libllama rounds up to a multiple of 256, but no more than the model was made for."""
    trained = re.search(r"n_ctx_train\s*= (\d+)", log)
    return min(cells, int(trained[1])) if trained else cells
