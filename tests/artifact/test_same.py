"""Is a file what was shipped?"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl
import pytest

from coldprefix.artifact import same

TABLE = pl.DataFrame({"name": ["a", None], "value": [1.0, float("nan")], "n": [1, 2]})


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_tables_are_compared_value_for_value(tmp_path: Path, suffix: str) -> None:
    one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
    for value, found in ((1.0, None), (1.0 + 1e-14, None), (1.0 + 1e-6, "row 0: value is 1.000001 instead of 1.0")):
        for path, table in ((one, TABLE), (other, TABLE.with_columns(value=pl.Series([value, float("nan")])))):
            table.write_parquet(path) if suffix == "parquet" else table.write_csv(path)
        assert same.difference(one, other) == found


def test_null_is_no_number() -> None:
    assert (
        same.between(TABLE, TABLE.with_columns(value=pl.Series([None, float("nan")], dtype=pl.Float64)))
        == "row 0: value is None instead of 1.0"
    )
    assert same.between(TABLE, TABLE.head(1)) == "1 rows instead of 2"
    assert "columns" in (same.between(TABLE, TABLE.drop("n")) or "")


def test_text_says_which_line(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("a\nb\n")
    other.write_text("a\nc\n")
    assert same.difference(one, other) == "line 2 is 'c' instead of 'b'"
    assert same.difference(one, tmp_path / "none.txt") == "was not made"


def test_a_picture_may_be_rounded_otherwise_but_not_show_something_else(tmp_path: Path) -> None:
    one, near, other = (tmp_path / f"{name}.png" for name in ("one", "near", "other"))
    for path, heights, top in ((one, [1, 2], 2.2), (near, [1, 2.0005], 2.2), (other, [2, 1], 2.2)):
        figure, axes = plt.subplots(figsize=(2, 2))
        axes.bar([0, 1], heights)
        axes.set_ylim(0, top)
        figure.savefig(path, dpi=100, metadata={"Title": path.stem})
        plt.close(figure)
    assert one.read_bytes() != near.read_bytes()
    assert same.difference(one, near) is None
    assert "another picture" in (same.difference(one, other) or "")
