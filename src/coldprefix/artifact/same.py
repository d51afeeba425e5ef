"""Is a file what was shipped? Byte for byte, or value for value where another machine may round the last digit differently."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

RELATIVE = 1e-9  # of a computed number: other CPUs add in another order
PIXELS = 4.0  # root mean square of grey values, of 255: fonts are drawn by the machine's own code


def difference(shipped: Path, made: Path) -> str | None:
    """What differs first, in words; None if nothing does. A picture may differ in a few pixels, a PDF is compared byte for byte."""
    if not made.is_file():
        return "was not made"
    one, other = shipped.read_bytes(), made.read_bytes()
    if one == other:
        return None
    if shipped.suffix == ".parquet":
        return between(pl.read_parquet(io.BytesIO(one)), pl.read_parquet(io.BytesIO(other)))
    if shipped.suffix == ".csv":
        return between(*(pl.read_csv(io.BytesIO(data), infer_schema_length=None) for data in (one, other)))
    if shipped.suffix == ".png":
        return _pictures(one, other)
    if shipped.suffix in (".txt", ".md"):
        return _lines(one.decode(), other.decode())
    return f"{len(other)} bytes that are not the {len(one)} shipped ones"


def between(shipped: pl.DataFrame, made: pl.DataFrame) -> str | None:
    """The first value that differs in two tables of the same rows in the same order."""
    if shipped.schema != made.schema:
        return f"columns {dict(made.schema)} instead of {dict(shipped.schema)}"
    if shipped.height != made.height:
        return f"{made.height} rows instead of {shipped.height}"
    for name, dtype in shipped.schema.items():
        one, other = shipped[name], made[name]
        equal = one.eq_missing(other)
        if dtype.is_float():
            near = (one - other).abs() <= RELATIVE * pl.DataFrame([one.abs(), other.abs().alias("other")]).max_horizontal()
            equal = equal | near.fill_null(False)
        if not equal.all():
            row = (~equal).arg_true()[0]
            return f"row {row}: {name} is {other[row]!r} instead of {one[row]!r}"
    return None


def _pictures(one: bytes, other: bytes) -> str | None:
    import numpy as np
    from matplotlib import image

    a, b = (np.asarray(image.imread(io.BytesIO(data), format="png")) for data in (one, other))
    if a.shape != b.shape:
        return f"{b.shape[1]} x {b.shape[0]} pixels instead of {a.shape[1]} x {a.shape[0]}"
    distance = 255 * float(np.sqrt(np.mean((a - b) ** 2)))
    return None if distance <= PIXELS else f"another picture: its pixels are {distance:.1f} of 255 off (root mean square)"


def _lines(one: str, other: str) -> str:
    a, b = one.splitlines(), other.splitlines()
    for number, (left, right) in enumerate(zip(a, b, strict=False), 1):
        if left != right:
            return f"line {number} is {right!r} instead of {left!r}"
    return f"{len(b)} lines instead of {len(a)}"
