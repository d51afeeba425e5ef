"""The harness against null engines whose times are known: no test asserts how good the clock is, only that it tells the truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from coldprefix.engines.clock import Stopwatch
from coldprefix.instrument import calibration as sample
from coldprefix.instrument import null_engines as engines

DELAY_MS = 20.0


def take(folder: Path) -> pl.DataFrame:
    return sample.take(folder / "null.log", samples=3, ttfts_ms=(1.0, 10.0), rates={100.0: 11})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return take(tmp_path_factory.mktemp("calibration"))


def test_every_null_engine_is_sampled_and_interleaved(samples: pl.DataFrame) -> None:
    counts = dict(samples.group_by("engine").len().rows())
    assert counts == dict.fromkeys(("llama-server", "vllm serve", "python"), 2 * 3 + 1)
    assert samples["order"].to_list() == list(range(samples.height))
    assert len(samples["engine"].rle()) > 4, "one engine after the other is not interleaved"


def test_the_truth_is_the_script_or_later_and_connecting_is_apart(samples: pl.DataFrame) -> None:
    assert (samples["true_ttft_ms"] >= samples["scripted_ttft_ms"]).all()
    over_http = samples.filter(pl.col("engine") != "python")
    assert (over_http["connect_ms"] > 0).all()
    assert samples.filter(pl.col("engine") == "python")["connect_ms"].null_count() == 7
    assert (samples["bias_ms"] - (samples["ttft_ms"] - samples["true_ttft_ms"])).abs().max() == 0


def test_a_late_clock_is_seen(samples: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading that comes late by 20 ms, as from a busy event loop, must appear as that much bias."""

    def late(_: Stopwatch) -> float:
        time.sleep(DELAY_MS / 1e3)
        return (time.perf_counter() - _.zero) * 1e3

    monkeypatch.setattr(Stopwatch, "ms", late)
    over_http = pl.col("engine") != "python"
    honest = sample.summarise(samples.filter(over_http))
    delayed = sample.summarise(take(tmp_path).filter(over_http))
    for before, after in zip(honest["bias_ms"].sort(), delayed["bias_ms"].sort(), strict=True):
        assert after - before > DELAY_MS / 2
    assert any("median bias of TTFT" in miss for miss in sample.misses(delayed))


def test_the_report_names_every_target_that_was_missed() -> None:
    row: dict[str, Any] = {"engine": "python", "beside": 0, "bias_ms": 0.0, "bias_p99_ms": 0.0, "throughput_error_pct": 0.0}
    assert sample.misses(pl.DataFrame([row])) == []
    bad = {"bias_ms": -1.0, "bias_p99_ms": 2.0, "throughput_error_pct": -0.9}
    assert len(sample.misses(pl.DataFrame([row | bad]))) == 3


def test_busy_threads_are_busy_and_end(samples: pl.DataFrame) -> None:
    with sample.busy(2):
        children = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
        running = [p for p in children if "while True: pass" in " ".join(p.cmdline())]
        time.sleep(0.5)
        assert len(running) == 2 and all(p.cpu_times().user > 0.05 for p in running)
    assert not [p for p in running if p.is_running()]
    both = sample.summarise(pl.concat([samples, samples.with_columns(beside=pl.lit(2, pl.Int32))]))
    assert both["beside"].to_list() == [2, 2, 2, 0, 0, 0], "what is loaded is quoted first"
    assert "busy threads" in sample.table(both)


def test_nothing_of_the_null_engines_survives(tmp_path: Path) -> None:
    null = engines.null_llama_server(tmp_path / "null.log")
    folder = null.client.server.folder
    assert folder.exists()
    null.close()
    assert not folder.exists()
