"""Random tensors as the shards of a Hub repository: safetensors files and their index, written in bounded memory.

The values of a tensor follow from the seed and its name alone, with exact arithmetic, so that every machine makes the same bytes and a
tensor keeps its values when others join. numpy and the standard library only: the environment with torch imports this, too.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARD_BYTES = 256_000_000  # a larger tensor is a shard of its own
CHUNK = 2**20  # values drawn at once; another even number changes no byte
INDEX = "model.safetensors.index.json"
STEP_MIN, STEP_MAX = 0.001, 0.1  # of time, as state space models are initialised


class Fill(NamedTuple):
    """What a tensor holds.

    Attributes:
        kind: random (uniform, of standard deviation ``value`` around 0); constant (``value``); decay (log 1, log 2, ... along the last
            dimension: the A of a state space model); time_steps (softplus of it lies between STEP_MIN and STEP_MAX).
    """

    kind: Literal["random", "constant", "decay", "time_steps"]
    value: float = 0.0


class Tensor(NamedTuple):
    """A tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    fill: Fill

    @property
    def size(self) -> int:
        """Number of its values."""
        return math.prod(self.shape)


def values_of(tensor: Tensor, seed: int) -> Iterator[NDArray[np.float32]]:
    """The values of a tensor in order, flat, at most CHUNK at a time."""
    kind, value = tensor.fill
    if kind == "random":
        # A uniform variable on (-a, a) has the standard deviation a / sqrt(3).
        rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(tensor.name.encode())]))
        step = np.float32(2 * value * math.sqrt(3.0) / 2**16)
        for size in _chunks(tensor.size):
            integers = rng.integers(0, 2**16, size=size, dtype=np.uint16)
            yield (integers.astype(np.float32) - np.float32(2**15) + np.float32(0.5)) * step
    elif kind == "constant":
        for size in _chunks(tensor.size):
            yield np.full(size, value, np.float32)
    else:
        count = tensor.shape[-1]
        row = np.array([_step(i, count) if kind == "time_steps" else math.log(i + 1) for i in range(count)], np.float32)
        for _ in range(tensor.size // count):
            yield row


def _chunks(size: int) -> Iterator[int]:
    for start in range(0, size, CHUNK):
        yield min(CHUNK, size - start)


def _step(i: int, count: int) -> float:
    """The inverse softplus of the i-th of ``count`` time steps, which are spread evenly by their logarithm."""
    dt = STEP_MIN * math.pow(STEP_MAX / STEP_MIN, (i + 0.5) / count)
    return dt + math.log(-math.expm1(-dt))


def _bfloat16(values: NDArray[np.float32]) -> NDArray[Any]:
    """Rounded to nearest, ties to even, as torch does; numpy has no such type, so these are its bits."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


class Dtype(NamedTuple):
    """How a checkpoint stores its values: the name in safetensors, bytes of each, and the rounding."""

    code: str
    width: int
    rounded: Callable[[NDArray[np.float32]], NDArray[Any]]


DTYPES = {
    "float32": Dtype("F32", 4, lambda values: values),
    "float16": Dtype("F16", 2, lambda values: values.astype(np.float16)),
    "bfloat16": Dtype("BF16", 2, _bfloat16),
}


def shards_of(tensors: Sequence[Tensor], width: int) -> list[list[Tensor]]:
    """The tensors in their order, in groups of at most SHARD_BYTES; ``width`` is bytes per value."""
    shards: list[list[Tensor]] = []
    held = 0
    for tensor in tensors:
        own = tensor.size * width
        if not shards or held + own > SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += own
    return shards


def write_checkpoint(folder: Path, tensors: Sequence[Tensor], dtype: str, seed: int) -> None:
    """Write model-00001-of-0000N.safetensors and their index into the existing ``folder``. ``dtype`` is a key of DTYPES.

    Raises:
        OSError: the disk is full.
    """
    kind = DTYPES[dtype]
    shards = shards_of(tensors, kind.width)
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    # A file for each thread: numpy draws and rounds without Python's lock.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(lambda name, shard: _write_shard(folder / name, shard, kind, seed), names, shards):
            pass
    where = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    total = sum(tensor.size for tensor in tensors) * kind.width
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1) + "\n")


def _write_shard(path: Path, tensors: Sequence[Tensor], dtype: Dtype, seed: int) -> None:
    """A safetensors file. The library writes one only from whole tensors in memory, and one tensor can be gigabytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.size * dtype.width
        header[tensor.name] = {"dtype": dtype.code, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # values begin at a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            for values in values_of(tensor, seed):
                file.write(np.ascontiguousarray(dtype.rounded(values)).data)
