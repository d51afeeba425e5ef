"""The whole pipeline as a user types it, with a tiny model on the real engines: all four backends, then what is stale.

One run of about three minutes; the tests after it look at what it made.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil
import pytest
from conftest import ROOT
from test_workflow import jobs

from coldprefix.data import tables
from coldprefix.setup import environments

pytestmark = pytest.mark.engine
Run = Callable[..., subprocess.CompletedProcess[str]]

# A block of vLLM has 128 tokens on the CPU. The tiny model answers in a few ms, so that vLLM's API server at times sends two
# tokens in a chunk, which is rejected: hence the generous max_rejected.
TINY = """
model: gpt2-tiny
accelerator: cpu
trials: 4
burn_in: 1
settle_ms: 0
stream_tokens: 8
calibration_samples: 2
peer_rounds: 3
max_rejected: 0.5
configurations: [A256_B128]
question_tokens: 8
experiments: [main]
"""
PHASES = ("phase1", "phase2", "phase3a", "phase3b")
FIGURES = [f"{phase}_panels" for phase in PHASES]


def nothing(done: subprocess.CompletedProcess[str]) -> bool:
    return "Nothing to be done" in done.stdout + done.stderr


class Watch(threading.Thread):
    """Looks at the processes of a run every 0.3 s: which addresses they listen on, their command lines, and the keys of the servers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.done = threading.Event()
        self.listening: set[tuple[str, str]] = set()  # (program, address)
        self.commands: set[str] = set()
        self.keys: dict[str, set[str]] = {"LLAMA_API_KEY": set(), "VLLM_API_KEY": set()}

    def run(self) -> None:
        while not self.done.wait(0.3):
            for process in psutil.process_iter(["cwd", "cmdline"]):
                if process.info["cwd"] != str(self.folder):
                    continue
                command = " ".join(process.info["cmdline"] or [])
                self.commands.add(command)
                try:
                    for name, found in self.keys.items():
                        found |= {process.environ()[name]} if name in process.environ() else set()
                    for connection in process.net_connections("inet"):
                        if connection.status == psutil.CONN_LISTEN:
                            self.listening.add((command[:80], connection.laddr.ip))
                except psutil.Error:
                    pass


@pytest.fixture(scope="session")
def watched(snakemake: Run, tmp_path_factory: pytest.TempPathFactory) -> Watch:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "tiny.yaml").write_text(TINY)
    # With a cache that is not where it usually is, and nothing there.
    home = tmp_path_factory.mktemp("home")
    places = {"COLDPREFIX_CACHE": str(environments.CACHE), "HOME": str(home)}
    watch = Watch(folder)
    watch.start()
    done = snakemake(folder, "--cores", "2", "--configfile", str(folder / "tiny.yaml"), timeout=1800, **places)
    watch.done.set()
    watch.join()
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert not (home / ".cache" / "coldprefix").exists(), "something was built a second time"
    assert "TTFT ms" in done.stdout + done.stderr, "the table of medians is printed"
    return watch


@pytest.fixture(scope="session")
def finished(watched: Watch) -> Path:
    return watched.folder


def test_all_through_a_run_nobody_else_can_reach_or_use_a_server(watched: Watch) -> None:
    assert any("llama-server" in command for command in watched.commands) and any("--uds" in command for command in watched.commands)
    assert watched.listening, "vLLM's processes talk to each other over TCP"
    assert {address for _, address in watched.listening} == {"127.0.0.1"}
    for name, keys in watched.keys.items():
        assert len(keys) >= 2, f"{name}: a key for each server, of the preflight and of the cells"
        for key in keys:
            assert len(key) >= 32 and not any(key in command for command in watched.commands), "every user can read command lines"
            assert not [p for p in watched.folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


@pytest.fixture
def run(snakemake: Run, finished: Path) -> Run:
    return lambda *arguments, **options: snakemake(finished, "--configfile", str(finished / "tiny.yaml"), *arguments, **options)


@pytest.fixture
def requests(finished: Path) -> pl.DataFrame:
    return pl.read_parquet(finished / "results" / "requests.parquet")


def test_everything_is_built_and_then_nothing_is_to_be_done(finished: Path, run: Run) -> None:
    for name in ("fig1_invalidation", *(f"{phase}_panels" for phase in PHASES)):
        for format, at_least in {"pdf": 5000, "png": 5000, "csv": 200, "txt": 100}.items():
            assert (finished / "figures" / f"{name}.{format}").stat().st_size > at_least, (name, format)
    for name, columns in (("requests", tables.REQUESTS), ("trials", tables.TRIALS), ("summary", tables.SUMMARY)):
        tables.validate(pl.read_parquet(finished / "results" / f"{name}.parquet"), columns, name)
    assert nothing(run("-n"))
    assert not [p for p in finished.rglob("*") if ".part" in p.name], "no partial file is left"


def test_every_request_of_every_cell_is_there(requests: pl.DataFrame) -> None:
    cells = requests.group_by("phase", "state").len().rows()
    assert sorted(cells) == sorted((phase, state, 20) for phase in PHASES for state in ("hit", "miss"))


def reused(requests: pl.DataFrame, phase: str, state: str, step: str) -> set[int | None]:
    keys = {"phase": phase, "state": state, "step": step}
    return set(requests.filter(*(pl.col(key) == value for key, value in keys.items()))["cached_tokens"])


@pytest.mark.parametrize("phase", PHASES)
def test_the_engines_report_the_reuse_that_was_meant(requests: pl.DataFrame, phase: str) -> None:
    for step in ("query", "stream"):
        assert reused(requests, phase, "hit", step) == {384}
        assert reused(requests, phase, "miss", step) == {0}
    for state in ("hit", "miss"):
        assert reused(requests, phase, state, "warmup") == {0}
    counts = requests.filter(pl.col("phase") == phase)
    assert (counts["cached_tokens"] + counts["evaluated_tokens"] == counts["prompt_tokens"]).all()


def test_what_a_miss_destroys_is_what_the_caches_differ_in(requests: pl.DataFrame) -> None:
    """One slot without a host tier loses [A, B] to a miss; a block pool keeps its whole blocks."""
    for phase in ("phase3a", "phase3b"):
        assert reused(requests, phase, "hit", "rewarm") == {383}
        assert reused(requests, phase, "miss", "rewarm") == {0}
    for phase in ("phase1", "phase2"):
        assert reused(requests, phase, "hit", "rewarm") == reused(requests, phase, "miss", "rewarm") == {256}


def test_all_backends_were_sent_the_same_tokens(requests: pl.DataFrame) -> None:
    hashes = requests.group_by("state", "trial", "step").agg(pl.col("prompt_hash").n_unique(), pl.len())
    assert set(hashes["prompt_hash"]) == {1} and set(hashes["len"]) == {4}


def test_cells_did_not_overlap_although_there_were_two_cores(requests: pl.DataFrame) -> None:
    ends = pl.col("started_at") + pl.duration(microseconds=(1e3 * pl.col("total_ms")).cast(pl.Int64))
    spans = requests.group_by("phase", "state").agg(start=pl.col("started_at").min(), end=ends.max()).sort("start")
    for (_, end), (start, _) in itertools.pairwise(spans.select("start", "end").rows()):
        assert end <= start


def test_provenance_tells_how_it_was_measured(finished: Path) -> None:
    records = {phase: json.loads((finished / f"results/raw/{phase}/A256_B128/hit/provenance.json").read_text()) for phase in PHASES}
    for phase, record in records.items():
        assert record["job"]["phase"] == phase and record["host"]["cpu"] and record["requests"] == 20
        assert record["software"]["coldprefix"] and record["in_force"]["context_tokens"] == 1024
    a, b = records["phase3a"]["in_force"], records["phase3b"]["in_force"]
    assert set(a["libraries"]) == {"libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu.so"}
    assert a["libraries"] == b["libraries"], "llama-server and the binding load the same library"
    assert a["kv_bytes_per_token"] == 2 * 2 * 128 * 2  # keys and values x layers x width x bytes
    assert records["phase1"]["in_force"]["block_tokens"] == 128


def test_cells_of_vllm_serve_share_a_server_that_each_finds_empty(finished: Path, requests: pl.DataFrame) -> None:
    records = {
        p.parent.name: json.loads(p.read_text()) for p in finished.glob("results/raw/*/A256_B128/*/provenance.json") if "phase1" in p.parts
    }
    before = {state: record["engine_used_before"] for state, record in records.items()}
    assert sorted(before.values()) in ([0, 1], [1, 2]), "the preflight may have been the first to use it"
    second = max(before, key=lambda state: before[state])
    assert reused(requests, "phase1", second, "warmup") == {0}, "the same prompts as in the cell before, and nothing of them was left"
    assert records[second]["engine_start_s"][0] < 5, "nothing was started"
    hashes = requests.filter((pl.col("phase") == "phase1") & (pl.col("step") == "warmup")).group_by("state").agg("prompt_hash")
    assert len({tuple(row) for row in hashes["prompt_hash"].to_list()}) == 1
    log = (finished / f"results/logs/phase1/A256_B128/{second}.log").read_text()
    assert "used a server that another cell had started" in log


def test_the_harness_is_set_beside_the_engines_own_instruments(finished: Path) -> None:
    peers = pl.read_parquet(finished / "results/peers/peers.parquet")
    assert set(peers["phase"]) == set(PHASES) and peers["ratio"].null_count() == 0
    assert set(peers.filter(pl.col("phase").is_in(["phase3a", "phase3b"]))["n"]) == {3}
    assert "llama-bench" in (finished / "results/report.html").read_text()


def test_no_engine_is_left_behind(finished: Path) -> None:
    left = [p.info for p in psutil.process_iter(["pid", "cmdline"]) if any(str(finished) in part for part in p.info["cmdline"] or [])]
    assert not left


# --- what is stale after which change -----------------------------------------------------------------------------------


def contents(folder: Path, *patterns: str) -> dict[Path, str]:
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for pattern in patterns for p in sorted(folder.glob(pattern))}


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        (["trials=5"], dict.fromkeys(PHASES, 2)),
        (["seed=1"], dict.fromkeys(PHASES, 2)),
        (["threads=1"], dict.fromkeys(PHASES, 2)),
        (["llamacpp={flash_attention: false}"], {"phase3a": 2, "phase3b": 2}),
        (["vllm={block_tokens: 64}"], {"phase1": 2, "phase2": 2}),
        (["cells={phase3b/A256_B128/miss: {trials: 9}}"], {"phase3b": 1}),
        (["model=gpt2-standin"], dict.fromkeys(PHASES, 2)),
        # The model and the cells are stale at once: the model's job must not hide that of the cells.
        (["models={gpt2-tiny: {seed: 2}}"], dict.fromkeys(PHASES, 2)),
        (["figures={font_pt: 9}"], {}),
    ],
)
def test_changed_values_measure_what_depends_on_them(run: Run, changes: list[str], measured: dict[str, int]) -> None:
    found = jobs(run("-n", "--config", *changes))
    assert {phase: found[phase] for phase in PHASES if found[phase]} == measured
    assert found["fig1_invalidation"] == 1


def test_touched_and_deleted_files_measure_nothing(finished: Path, run: Run) -> None:
    for path in [*ROOT.glob("workflow/**/*"), *ROOT.glob("src/**/*.py"), ROOT / "config.yaml", *(finished / "results").rglob("*.json")]:
        if path.is_file():
            path.touch()
    assert nothing(run("-n"))
    shutil.move(finished / "models", finished / "models.away")
    try:
        assert nothing(run("-n"))
    finally:
        shutil.move(finished / "models.away", finished / "models")


def test_making_the_model_or_the_engine_again_measures_nothing(finished: Path, run: Run) -> None:
    before = contents(finished, "results/raw/**/*.parquet")
    done = run("--forcerun", "model", "gguf", "environment")
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(finished, "results/raw/**/*.parquet") == before
    assert not any(jobs(done)[phase] for phase in PHASES)
    assert nothing(run("-n"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second checkout of the same code at another place."""
    folder = tmp_path_factory.mktemp("checkout") / "copy"
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def dry_run(checkout: Path, finished: Path) -> subprocess.CompletedProcess[str]:
    import sys

    program = str(Path(sys.executable).parent / "snakemake")
    command = [program, "-s", str(checkout / "Snakefile"), "--directory", str(finished), "--configfile", str(finished / "tiny.yaml"), "-n"]
    return subprocess.run([*command, "--nocolor"], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "measured"),
    [
        (None, {}),
        ("src/coldprefix/protocol.py", dict.fromkeys(PHASES, 2)),
        ("src/coldprefix/engines/llamacpp_http.py", {"phase3a": 2}),
        ("src/coldprefix/engines/vllm.py", {"phase1": 2, "phase2": 2}),
        ("envs/vllm-cpu/requirements.txt", {"phase1": 2, "phase2": 2}),
        ("envs/llamacpp/requirements.txt", {"phase3a": 2, "phase3b": 2}),
        ("envs/driver/requirements.txt", {}),
        ("src/coldprefix/figures/style.py", {}),
        ("README.md", {}),
    ],
)
def test_changed_code_measures_what_depends_on_it(checkout: Path, finished: Path, file: str | None, measured: dict[str, int]) -> None:
    """A moved checkout measures nothing; a changed line measures the cells whose numbers it could change."""
    original = (checkout / file).read_bytes() if file else b""
    if file:
        (checkout / file).write_bytes(original + b"\n# changed\n")
    try:
        done = dry_run(checkout, finished)
        found = jobs(done)
        assert done.returncode == 0, done.stderr
        assert {phase: found[phase] for phase in PHASES if found[phase]} == measured
        assert nothing(done) == (file in (None, "README.md", "envs/driver/requirements.txt"))
    finally:
        if file:
            (checkout / file).write_bytes(original)


def test_a_deleted_cell_is_measured_alone(finished: Path, run: Run) -> None:
    target = finished / "results/raw/phase3b/A256_B128/hit/requests.parquet"
    kept = target.read_bytes()
    target.unlink()
    try:
        found = jobs(run("-n"))
        assert found["phase3b"] == 1 and found["aggregate"] == 1 and not any(found[p] for p in PHASES[:3])
    finally:
        target.write_bytes(kept)


def test_forcerun_measures_one_phase_again_and_redraws_what_depends_on_it(finished: Path, run: Run) -> None:
    others = ["results/raw/phase[12]/**/*.parquet", "results/raw/phase3a/**/*.parquet", "results/preflight/*", "models/*.gguf"]
    before, mine = contents(finished, *others), contents(finished, "results/raw/phase3b/**/*.parquet")
    done = run("--forcerun", "phase3b")
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(finished, *others) == before
    after = contents(finished, "results/raw/phase3b/**/*.parquet")
    assert after.keys() == mine.keys() and not set(after.values()) & set(mine.values())
    ran = set(jobs(done))
    assert ran <= {
        "phase3b",
        "experiment",
        "aggregate",
        "fig1_invalidation",
        "phase3b_panels",
        *FIGURES,
        "claims",
        "peers",
        "report",
        "all",
        "total",
    }, ran


# --- what is not what it was meant to be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "settings", "reused_tokens"),
    [
        ("phase2", [], 128),  # the block pool kept the first [B, Q]
        ("phase3a", ["llamacpp={host_cache_mib: 64}"], 135),  # llama-server's host-memory cache restored it
    ],
)
def test_repeated_misses_are_found_to_be_hits_and_fail(
    finished: Path, run: Run, phase: str, settings: list[str], reused_tokens: int
) -> None:
    """The original study's mistake, on the real engines: the cell fails with a table that shows why, and leaves no result."""
    cell = finished / f"results/raw/{phase}/A256_B128/miss"
    original = {p: p.read_bytes() for p in cell.iterdir()}
    done = run("--config", f"phases={phase}", "states=miss", "content=repeated", "max_rejected=0.2", *settings)
    try:
        assert done.returncode != 0
        output = done.stdout + done.stderr
        assert f"{phase}/A256_B128/miss: 4 of 4 trials are not what they were meant to be; max_rejected allows 20%" in output
        assert f"reused {reused_tokens} tokens, should be 0" in output
        assert not (cell / "requests.parquet").exists()
        assert pl.read_parquet(cell / "requests.rejected.parquet").height == 20
    finally:
        (cell / "requests.rejected.parquet").unlink(missing_ok=True)
        for path, data in original.items():
            path.write_bytes(data)


def test_a_phase_may_name_its_own_model(finished: Path, snakemake: Run, tmp_path: Path) -> None:
    """OPT on vLLM beside GPT-2 on llama.cpp, as in the original study."""
    opt = "{source: standin, architecture: OPTForCausalLM, layers: 2, width: 128, heads: 2, positions: 1024, vocabulary: 50272, seed: 1}"
    (tmp_path / "my.yaml").write_text(
        f"{TINY}\nphases: [phase2, phase3b]\nphase_models: {{phase2: opt-tiny}}\nmodels: {{opt-tiny: {opt}}}\n"
    )
    done = snakemake(tmp_path, "--configfile", str(tmp_path / "my.yaml"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    requests = pl.read_parquet(tmp_path / "results" / "requests.parquet")
    assert set(requests.select("phase", "model").unique().rows()) == {("phase2", "opt-tiny"), ("phase3b", "gpt2-tiny")}
    assert reused(requests, "phase2", "hit", "stream") == {384} and reused(requests, "phase2", "miss", "stream") == {0}


def test_a_reset_empties_the_real_caches(snakemake: Run, tmp_path: Path) -> None:
    """Repeated prompts, so that only the reset can make a warm-up cold."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    values = ["phases=phase2,phase3a,phase3b", "states=hit", "content=repeated", "reset=trial"]
    done = snakemake(tmp_path, "--configfile", str(tmp_path / "tiny.yaml"), "--config", *values)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    requests = pl.read_parquet(tmp_path / "results" / "requests.parquet")
    for phase in ("phase2", "phase3a", "phase3b"):
        assert reused(requests, phase, "hit", "warmup") == {0}
        assert reused(requests, phase, "hit", "query") == {384}


def test_a_repeated_miss_in_a_single_slot_stays_a_miss(finished: Path, run: Run, snakemake: Run, tmp_path: Path) -> None:
    shutil.copytree(finished / "models", tmp_path / "models")
    arguments = ["--configfile", str(finished / "tiny.yaml"), "--config", "phases=phase3b", "content=repeated"]
    done = snakemake(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    trials = pl.read_parquet(tmp_path / "results" / "trials.parquet").filter("valid")
    assert set(trials.filter(pl.col("state") == "miss")["query_cached_tokens"]) == {0}


@pytest.fixture(scope="module")
def swept(snakemake: Run, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Requests of three sweeps on llama-server, and of a chat cell of `vllm serve`."""
    folder = tmp_path_factory.mktemp("sweeps")
    shutil.copytree(finished / "models", folder / "models")
    arguments = ["--configfile", str(finished / "tiny.yaml"), "--config", "experiments=request_form,slots,host_tier"]
    done = snakemake(folder, *arguments, "phases=phase1,phase3a", "--until", "phase3a")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    done = snakemake(folder, "results/raw/phase1/request_form/chat/A384_B256/hit/requests.parquet", *arguments, "phases=phase1,phase3a")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return pl.concat([tables.read_requests(path) for path in folder.glob("results/raw/**/requests.parquet")])


def of(requests: pl.DataFrame, **keys: str) -> pl.DataFrame:
    return requests.filter(*(pl.col(key) == value for key, value in keys.items()))


def test_text_and_chat_are_verified_by_the_engine_s_own_tokenizer(swept: pl.DataFrame) -> None:
    for phase, form in (("phase3a", "text"), ("phase3a", "chat"), ("phase1", "chat")):
        cell = of(swept, phase=phase, variant=f"request_form/{form}", state="hit")
        queries = cell.filter(pl.col("step").is_in(["query", "stream"]))
        assert queries.height == 2 * (1 + 8) and (queries["cached_tokens"] == queries["intended_cached_tokens"]).all()
        assert (queries["prompt_tokens"] != 648).any(), "the text has another length than the ids it was made from"
        # vLLM's tiny model may send two tokens in the first chunk; nothing else may be wrong.
        assert not [r for r in cell["rejection"].drop_nulls() if "first chunk carried" not in r]
    heads = set(of(swept, variant="request_form/chat", phase="phase3a", state="miss", step="query")["cached_tokens"])
    assert len(heads) == 1 and 1 < heads.pop() < 20, "a chat miss reuses the template's head and nothing else"


def test_four_slots_on_1024_cells(swept: pl.DataFrame) -> None:
    refused = of(swept, variant="slots/split_256")
    assert (
        refused["rejection"].str.contains("exceeds the available context size").all() and refused["total_ms"].null_count() == refused.height
    )
    assert set(of(swept, variant="slots/unified_1024", step="rewarm")["cached_tokens"]) == {0}, "the pool is too small for both prompts"
    assert set(of(swept, variant="slots/split_1024", step="rewarm")["cached_tokens"]) == {767}, "another slot took the miss"


def test_a_host_memory_tier_brings_the_prefix_back(swept: pl.DataFrame) -> None:
    assert set(of(swept, variant="host_tier/off", state="miss", step="rewarm")["cached_tokens"]) == {0}
    assert set(of(swept, variant="host_tier/on", state="miss", step="rewarm")["cached_tokens"]) == {767}
