"""Warnings, costs and peers: each is given where it is due, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from coldprefix.analysis import caveats
from coldprefix.analysis import walltime as costs
from coldprefix.data import tables
from coldprefix.instrument import peers


def cell(**columns: Any) -> pl.DataFrame:
    n = len(next(iter(columns.values())))
    base: dict[str, Any] = dict.fromkeys(tables.TRIALS)
    base |= {"phase": "phase3a", "variant": "main", "configuration": "A512_B256", "state": "miss"}
    base |= {
        "job": "phase3a/A512_B256/miss",
        "own": True,
        "burn_in": False,
        "valid": True,
        "foreign_cpu": 0.01,
        "steal_cpu": 0.0,
        "cpu_mhz": 2900.0,
    }
    rows = {name: [value] * n for name, value in base.items()} | {"trial": list(range(n))}
    rows |= {"process": [i * 3 // n for i in range(n)], "engine_process": [str(i * 3 // n) for i in range(n)]}
    noise = np.random.default_rng(0).normal(100, 1, n).tolist()
    return pl.DataFrame(rows | {"ttft_ms": noise} | columns, schema=tables.schema(tables.TRIALS))


def record(gpus: Any = (), gpus_after: Any = (), processes: Any = 3, used: int = 3, max_rejected: float = 0.2) -> dict[str, Any]:
    job: dict[str, Any] = {"phase": "phase3a", "variant": "main", "configuration": "A512_B256", "state": "miss"}
    job |= {"protocol": {"processes": processes, "max_rejected": max_rejected}}
    return {"job": job, "host": {"gpus": list(gpus)}, "gpus_after": list(gpus_after), "wall_s": 10.0, "engine_start_s": [1.0] * used}


def kinds(trials: pl.DataFrame, of: dict[str, Any] | None = None) -> list[str]:
    return caveats.caveats_of(trials, [of or record()])["kind"].to_list()


GPU = {"name": "H100", "thermal_violation_ns": 0, "power_violation_ns": 5}


def test_a_quiet_cell_has_none() -> None:
    assert kinds(cell(trial=range(12))) == []
    assert kinds(cell(trial=range(12)), record([GPU], [GPU])) == []


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"foreign_cpu": [0.3] * 12}, "busy"),
        ({"steal_cpu": [0.03] * 12}, "steal"),
        ({"cpu_mhz": [2000.0] * 6 + [3000.0] * 6}, "frequency"),
        ({"ttft_ms": [100.0 + 2 * i for i in range(12)], "process": [0] * 12}, "drift"),
        ({"trial": range(5)}, "few"),
    ],
)
def test_each_trouble_is_named_with_what_to_do(columns: dict[str, Any], kind: str) -> None:
    found = caveats.caveats_of(cell(**columns), [record()])
    assert found["kind"].to_list() == [kind]
    assert "snakemake" in found["message"][0] or "raise" in found["message"][0]
    assert found["cell"].to_list() == ["phase3a/A512_B256/miss"] and found["cell"][0] in caveats.text(found)


def test_one_busy_trial_of_twelve_is_no_busy_machine() -> None:
    assert kinds(cell(foreign_cpu=[0.9] + [0.01] * 11)) == []


def test_a_throttled_gpu_is_named_by_the_driver_s_counter() -> None:
    found = caveats.caveats_of(cell(trial=range(12)), [record([GPU], [GPU | {"power_violation_ns": 3_000_000_005}])])
    assert found["kind"].to_list() == ["throttled"] and "power reasons in 30% of the time" in found["message"][0]


def test_a_precision_that_was_not_reached() -> None:
    until = {"min": 3, "max": 8, "precision": 0.001}
    assert kinds(cell(trial=range(12)), record(processes=until, used=8)) == ["imprecise"]
    assert kinds(cell(trial=range(12)), record(processes=until, used=5)) == []


def test_where_all_may_be_rejected_few_are_no_surprise() -> None:
    assert kinds(cell(trial=range(3)), record(max_rejected=1.0)) == []


def test_costs_add_up() -> None:
    base = {"job_s": 100.0, "engine_busy_s": 80.0, "engine_start_s": [6.0, 4.0], "settle_s": 2.0}
    first = base | {"job": {"phase": "phase1"}, "finished_at": "2026-01-01T00:02:00+00:00"}
    second = base | {"job": {"phase": "phase2"}, "finished_at": "2026-01-01T00:03:43+00:00"}
    rows = {row["phase"]: row for row in costs.breakdown([first, second])}
    assert rows["phase1"]["harness"] == 8.0 and rows["all"]["computing"] == 160.0 and rows["all"]["cells"] == 2
    assert sum(rows["all"][part] for part in costs.PARTS) == rows["all"]["job_s"]
    seconds, times = costs.between([second, first])
    assert seconds == pytest.approx(3.0) and times == 1
    assert "80%" in costs.table([first, second])


def test_peers_are_paired_and_a_difference_is_explained() -> None:
    rows = [
        {
            "round": r,
            "order": 0,
            "phase": phase,
            "tokens": 280,
            "ttft_ms": ttft * (1 + r / 10),
            "engine_prompt_ms": inner and inner * (1 + r / 10),
        }
        for r in range(8)
        for phase, ttft, inner in ((None, 100.0, None), ("phase3a", 101.0, 100.0), ("phase3b", 110.0, 101.0))
    ]
    rows.append(rows[1] | {"round": 8, "rejection": "reused 5 tokens, should be 0"})
    found = peers.summarise(
        peers.pairs_of_rounds(pl.DataFrame(rows, schema={k: t for k, (t, _) in peers.ROUNDS.items()}, infer_schema_length=None))
    )
    a, b = found.iter_rows(named=True)
    assert (a["phase"], a["n"], a["ratio"]) == ("phase3a", 8, pytest.approx(1.01))
    assert (b["ratio"], b["ratio_low"], b["outside_ms"]) == (pytest.approx(1.1), pytest.approx(1.1), pytest.approx(9.0 * 1.35))
    text = peers.table(found)
    assert "phase3b, 280 tokens: TTFT differs by +10.0%" in text and "phase3a, 280" not in text and "noise" not in text
    assert "too few rounds" in peers.table(found.with_columns(ratio_low=pl.lit(0.9)))


def test_vllm_s_peer_is_its_own_first_token_time() -> None:
    own = cell(ttft_ms=[55.0] * 6).with_columns(engine=pl.lit("vllm"), engine_ttft_ms=50.0, stream_evaluated_tokens=pl.lit(280, pl.Int32))
    (row,) = peers.summarise(peers.pairs_of_trials(own)).iter_rows(named=True)
    assert (row["peer"], row["tokens"], row["ratio"], row["outside_ms"]) == ("vLLM's own", 280, pytest.approx(1.1), 5.0)
