"""The whole pipeline as a user types it, with a tiny model on the real engines: what one run of all four backends made (finished_run.py)."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil
import pytest
from finished_run import PHASES, TINY, Watch, nothing

from coldprefix.analysis.self_check import SELF_CHECK
from coldprefix.data import tables

pytestmark = pytest.mark.engine
Run = Callable[..., subprocess.CompletedProcess[str]]
PROCESSES = {"phase1": 1, "phase2": 1, "phase3a": 1, "phase3b": 3}


def of(requests: pl.DataFrame, **keys: str) -> pl.DataFrame:
    return requests.filter(*(pl.col(key) == value for key, value in keys.items()))


def test_all_through_a_run_nobody_else_can_reach_or_use_a_server(watched: Watch) -> None:
    assert any("llama-server" in command for command in watched.commands) and any("--uds" in command for command in watched.commands)
    assert watched.listening, "vLLM's processes talk to each other over TCP"
    assert {address for _, address in watched.listening} == {"127.0.0.1"}
    for name, keys in watched.keys.items():
        assert len(keys) >= (2 if name.startswith("LLAMA") else 1), f"{name}: a key for each server; vllm serve is shared"
        for key in keys:
            assert len(key) >= 32 and not any(key in command for command in watched.commands), "every user can read command lines"
            assert not [p for p in watched.folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


def test_everything_is_built_and_then_nothing_is_to_be_done(finished: Path, again: Run) -> None:
    for name in ("fig1_invalidation", *(f"{phase}_panels" for phase in PHASES)):
        for format, at_least in {"pdf": 5000, "png": 5000, "csv": 200, "txt": 100}.items():
            assert (finished / "figures" / f"{name}.{format}").stat().st_size > at_least, (name, format)
    for name, columns in (("requests", tables.REQUESTS), ("trials", tables.TRIALS), ("summary", tables.SUMMARY)):
        tables.validate(pl.read_parquet(finished / "results" / f"{name}.parquet"), columns, name)
    assert nothing(again("-n"))
    assert not [p for p in finished.rglob("*") if ".part" in p.name], "no partial file is left"


def test_every_request_of_every_cell_is_there(requests: pl.DataFrame) -> None:
    main = of(requests, sweep="main")
    own = main.filter("own").group_by("phase", "state").len().rows()
    assert sorted(own) == sorted((phase, state, 20 * PROCESSES[phase]) for phase in PHASES for state in ("hit", "miss"))
    partners = main.filter(~pl.col("own")).group_by("phase", "state").len().rows()
    # In the job of the other state, cold in both, without warm-ups.
    assert sorted(partners) == sorted((p, s, 20 * PROCESSES[p]) for p in ("phase3a", "phase3b") for s in ("hit", "miss", "cold"))


def test_each_process_is_one_of_its_own(requests: pl.DataFrame) -> None:
    """Also of an engine inside the measuring program. Cells of vllm serve visit the same ones."""
    main = of(requests, sweep="main")
    for phase, processes in PROCESSES.items():
        jobs = 1 if phase == "phase1" else 2
        assert main.filter(pl.col("phase") == phase)["engine_process"].n_unique() == jobs * processes


def test_a_cold_prompt_finds_nothing(requests: pl.DataFrame) -> None:
    cold = of(requests, state="cold")
    assert set(cold["cached_tokens"]) == {0} and set(cold["step"]) == {"query", "stream"} and not cold["rejection"].drop_nulls().len()


def test_the_run_checks_itself(finished: Path) -> None:
    found = pl.read_parquet(finished / "results/self_check.parquet")
    tables.validate(found, SELF_CHECK, "self_check")
    # Only that phase has three processes, below which nothing has an interval.
    assert set(found["backend"]) == {"phase3b"} and "effect miss/hit A256_B128" in found["quantity"].to_list()
    assert "A/A: the same computation in two places" in (finished / "results/summary.txt").read_text()


def reused(requests: pl.DataFrame, phase: str, state: str, step: str) -> set[int | None]:
    return set(of(requests, sweep="main", phase=phase, state=state, step=step)["cached_tokens"])


@pytest.mark.parametrize("phase", PHASES)
def test_the_engines_report_the_reuse_that_was_meant(requests: pl.DataFrame, phase: str) -> None:
    for step in ("query", "stream"):
        assert reused(requests, phase, "hit", step) == {384}
        assert reused(requests, phase, "miss", step) == {0}
    for state in ("hit", "miss"):
        assert reused(requests, phase, state, "warmup") == {0}
    counts = of(requests, sweep="main", phase=phase)
    assert (counts["cached_tokens"] + counts["evaluated_tokens"] == counts["prompt_tokens"]).all()


def test_what_a_miss_destroys_is_what_the_caches_differ_in(requests: pl.DataFrame) -> None:
    """One slot without a host tier loses [A, B] to a miss; a block pool keeps its whole blocks."""
    for phase in ("phase3a", "phase3b"):
        assert reused(requests, phase, "hit", "rewarm") == {383}
        assert reused(requests, phase, "miss", "rewarm") == {0}
    for phase in ("phase1", "phase2"):
        assert reused(requests, phase, "hit", "rewarm") == reused(requests, phase, "miss", "rewarm") == {256}


def test_all_backends_were_sent_the_same_tokens(requests: pl.DataFrame) -> None:
    main = of(requests, sweep="main").filter("own", pl.col("process") == 0)
    hashes = main.group_by("state", "trial", "step").agg(pl.col("prompt_hash").n_unique(), pl.len())
    assert set(hashes["prompt_hash"]) == {1} and set(hashes["len"]) == {4}


def test_cells_did_not_overlap_although_there_were_two_cores(requests: pl.DataFrame) -> None:
    ends = pl.col("started_at") + pl.duration(microseconds=(1e3 * pl.col("total_ms")).cast(pl.Int64))
    spans = requests.drop_nulls("total_ms").group_by("job").agg(start=pl.col("started_at").min(), end=ends.max()).sort("start")
    for (_, end), (start, _) in itertools.pairwise(spans.select("start", "end").rows()):
        assert end <= start


def test_provenance_tells_how_it_was_measured(finished: Path) -> None:
    records = {phase: json.loads((finished / f"results/raw/{phase}/A256_B128/hit/provenance.json").read_text()) for phase in PHASES}
    for phase, record in records.items():
        assert (
            record["job"]["phase"] == phase
            and record["host"]["cpu"]
            and record["requests"] == {"phase1": 20, "phase2": 20, "phase3a": 50, "phase3b": 150}[phase]
        )
        assert record["software"]["coldprefix"] and record["in_force"]["context_tokens"] == 1024
        assert len(record["engine_start_s"]) == PROCESSES[phase]
    a, b = records["phase3a"]["in_force"], records["phase3b"]["in_force"]
    assert set(a["libraries"]) == {"libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu.so"}
    assert a["libraries"] == b["libraries"], "llama-server and the binding load the same library"
    assert a["kv_bytes_per_token"] == 2 * 2 * 128 * 2  # keys and values x layers x width x bytes
    assert records["phase1"]["in_force"]["block_tokens"] == 128


def test_cells_of_vllm_serve_share_a_server_that_each_finds_empty(finished: Path, requests: pl.DataFrame) -> None:
    records = {
        p.parent.name: json.loads(p.read_text()) for p in finished.glob("results/raw/*/A256_B128/*/provenance.json") if "phase1" in p.parts
    }
    before = {state: tuple(record["engine_used_before"]) for state, record in records.items()}
    assert len(set(before.values())) == 2, "one after the other"
    second = max(before, key=lambda state: before[state])
    assert reused(requests, "phase1", second, "warmup") == {0}, "the same prompts as in the cell before, and nothing of them was left"
    assert max(records[second]["engine_start_s"]) < 5, "nothing was started"
    hashes = of(requests, sweep="main", phase="phase1", step="warmup").group_by("state").agg("prompt_hash")
    assert len({tuple(row) for row in hashes["prompt_hash"].to_list()}) == 1
    log = finished / f"results/logs/phase1/A256_B128/{second}.log"
    assert "used a server that another cell had started" in log.read_text()


def test_the_harness_is_set_beside_the_engines_own_instruments(finished: Path) -> None:
    peers = pl.read_parquet(finished / "results/peers/peers.parquet")
    assert set(peers["phase"]) == set(PHASES) and peers["ratio"].null_count() == 0
    assert set(peers.filter(pl.col("phase").is_in(["phase3a", "phase3b"]))["n"]) == {3}
    assert "llama-bench" in (finished / "results/report.html").read_text()


def test_no_engine_is_left_behind(finished: Path) -> None:
    left = [p.info for p in psutil.process_iter(["pid", "cmdline"]) if any(str(finished) in part for part in p.info["cmdline"] or [])]
    assert not left


# --- what is not what it was meant to be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "settings", "reused_tokens"),
    [
        ("phase2", [], 128),  # the block pool kept the first [B, Q]
        ("phase3a", ["llamacpp={host_cache_mib: 64}"], 135),  # llama-server's host-memory cache restored it
    ],
)
def test_repeated_misses_are_found_to_be_hits_and_fail(
    spare: Path, in_spare: Run, phase: str, settings: list[str], reused_tokens: int
) -> None:
    """The original study's mistake, on the real engines: the cell fails with a table that shows why, and leaves no result."""
    cell = spare / f"results/raw/{phase}/A256_B128/miss"
    done = in_spare("--config", f"phases={phase}", "experiments=main", "states=miss", "content=repeated", "max_rejected=0.2", *settings)
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert f"{phase}/A256_B128/miss: 4 of 4 trials are not what they were meant to be; max_rejected allows 20%" in output
    assert f"reused {reused_tokens} tokens, should be 0" in output
    assert not (cell / "requests.parquet").exists()
    assert pl.read_parquet(cell / "requests.rejected.parquet").height == 20


@pytest.mark.slow
def test_cells_of_vllm_serve_share_one_server_for_each_of_their_processes(spare: Path, in_spare: Run) -> None:
    cells = [f"results/raw/phase1/A256_B128/{state}/requests.parquet" for state in ("hit", "miss")]
    done = in_spare(*cells, "--config", 'cells={"phase1/*/*": {processes: 2}}')
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = [dict(pl.read_parquet(spare / cell).group_by("process").agg(pl.col("engine_process").unique()).rows()) for cell in cells]
    assert found[0] == found[1] and len({own for (own,) in found[0].values()}) == 2


@pytest.mark.slow
def test_a_phase_may_name_its_own_model(finished: Path, snakemake: Run, tmp_path: Path) -> None:
    """OPT on vLLM beside GPT-2 on llama.cpp, as in the original study."""
    opt = "{source: standin, architecture: OPTForCausalLM, layers: 2, width: 128, heads: 2, positions: 1024, vocabulary: 50272, seed: 1}"
    (tmp_path / "my.yaml").write_text(
        f"{TINY}\nexperiments: [main]\nphases: [phase2, phase3b]\nstates: [hit]\nphase_models: {{phase2: opt-tiny}}\nmodels: {{opt-tiny: {opt}}}\n"
    )
    cells = {phase: f"results/raw/{phase}/A256_B128/hit/requests.parquet" for phase in ("phase2", "phase3b")}
    done = snakemake(tmp_path, *cells.values(), "--configfile", str(tmp_path / "my.yaml"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    frames = {phase: pl.read_parquet(tmp_path / cell) for phase, cell in cells.items()}
    assert {phase: set(frame["model"]) for phase, frame in frames.items()} == {"phase2": {"opt-tiny"}, "phase3b": {"gpt2-tiny"}}
    assert reused(frames["phase2"], "phase2", "hit", "stream") == {384}


def test_a_reset_empties_the_real_caches(finished: Path, requests: pl.DataFrame) -> None:
    cell = of(requests, phase="phase3b", sweep="resets", state="hit")
    assert cell.height == 20 and not cell["rejection"].drop_nulls().len()
    assert set(of(cell, step="warmup")["cached_tokens"]) == {0}
    assert set(of(cell, step="query")["cached_tokens"]) == {384}
    for phase in PHASES:  # the check of answers empties them, too, and asks the same prompt again
        answers = json.loads((finished / f"results/raw/{phase}/A256_B128/hit/provenance.json").read_text())["answers"]
        assert [
            (answer["state"], answer["reused_tokens"], answer["cold_reused_tokens"]) for answer in answers if answer["state"] == "hit"
        ] == [("hit", 384, 0)]


def test_a_repeated_miss_in_a_single_slot_stays_a_miss(requests: pl.DataFrame) -> None:
    cell = of(requests, phase="phase3b", sweep="again", step="query")
    assert cell["prompt_hash"].n_unique() == 1 and set(cell["cached_tokens"]) == {0}


def test_text_and_chat_are_verified_by_the_engine_s_own_tokenizer(requests: pl.DataFrame) -> None:
    for phase, form in (("phase3a", "text"), ("phase3a", "chat"), ("phase1", "chat")):
        cell = of(requests, phase=phase, variant=form, state="hit")
        queries = cell.filter(pl.col("step").is_in(["query", "stream"]))
        assert queries.height == 2 * (1 + 4) and (queries["cached_tokens"] == queries["intended_cached_tokens"]).all()
        assert (queries["prompt_tokens"] != 648).any(), "the text has another length than the ids it was made from"
        # vLLM's tiny model may send two tokens in the first chunk; nothing else may be wrong.
        assert not [r for r in cell["rejection"].drop_nulls() if "first chunk carried" not in r]
    heads = set(of(requests, variant="chat", phase="phase3a", state="miss", step="query")["cached_tokens"])
    assert len(heads) == 1 and 1 < heads.pop() < 20, "a chat miss reuses the template's head and nothing else"


def test_four_slots_on_1024_cells(requests: pl.DataFrame) -> None:
    refused = of(requests, variant="slots/split_256")
    assert (
        refused["rejection"].str.contains("exceeds the available context size").all() and refused["total_ms"].null_count() == refused.height
    )
    assert set(of(requests, variant="slots/unified_1024", step="rewarm")["cached_tokens"]) == {0}, "the pool is too small for both prompts"
    assert set(of(requests, variant="slots/split_1024", step="rewarm")["cached_tokens"]) == {767}, "another slot took the miss"


def test_a_host_memory_tier_brings_the_prefix_back(requests: pl.DataFrame) -> None:
    assert set(of(requests, variant="host_tier/off", state="miss", step="rewarm")["cached_tokens"]) == {0}
    assert set(of(requests, variant="host_tier/on", state="miss", step="rewarm")["cached_tokens"]) == {767}
