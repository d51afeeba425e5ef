"""What is stale after which change, on a finished run of the real engines."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Values, with_values
from finished_run import PHASES, TINY, nothing
from test_workflow import jobs

from coldprefix.study.checks import parse
from coldprefix.study.plan import plan_of

pytestmark = pytest.mark.engine
Run = Callable[..., subprocess.CompletedProcess[str]]
FIGURES = [f"{phase}_panels" for phase in PHASES]

# --- what is stale after which change -----------------------------------------------------------------------------------


def contents(folder: Path, *patterns: str) -> dict[Path, str]:
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for pattern in patterns for p in sorted(folder.glob(pattern))}


def cells(*phases: str, experiments: tuple[str, ...] = ()) -> dict[str, int]:
    """Cells of the finished run by phase."""
    plan = plan_of(parse(merged()))
    return {phase: len(plan.cells(*experiments, phases=[phase])) for phase in phases}


def merged() -> Values:
    """config.yaml with what the finished run changes, as Snakemake merges them."""
    values: Values = yaml.safe_load((ROOT / "config.yaml").read_text())
    for key, value in yaml.safe_load(TINY).items():
        if key == "sweeps":
            values[key] = {name: values[key].get(name, {}) | own for name, own in {**values[key], **value}.items()}
        else:
            values[key] = value
    return values


ALL = cells(*PHASES)


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        (["seed=1"], ALL),
        (["llamacpp={flash_attention: false}"], cells("phase3a", "phase3b")),
        (["cells={phase3b/A256_B128/miss: {trials: 9}}"], {"phase3b": 1}),
        # The model and the cells are stale at once: the model's job must not hide that of the cells.
        (["models={gpt2-tiny: {seed: 2}}"], ALL),
        (["figures={font_pt: 9}"], {}),
        (["timeout_s=300"], {}),
    ],
)
def test_changed_values_measure_what_depends_on_them(again: Run, changes: list[str], measured: dict[str, int]) -> None:
    found = jobs(again("-n", "--config", *changes))
    assert {phase: found[phase] for phase in PHASES if found[phase]} == measured
    assert found["fig1_invalidation"] == (changes != ["timeout_s=300"])


def test_what_other_values_measure_follows_from_the_plan() -> None:
    """As above, without asking Snakemake, which compares the digests."""
    before = plan_of(parse(merged()))
    for changes, phases in (
        ({"threads": 1}, PHASES),
        ({"vllm.block_tokens": 64}, ("phase1", "phase2")),
        ({"model": "gpt2-standin"}, PHASES),
        ({"question_tokens": 9}, PHASES),
        ({"start_timeout_s": 99, "peer_rounds": 4}, ()),
    ):
        after = plan_of(parse(with_values(merged(), changes)))
        assert {j.phase for c, j in after.jobs.items() if j.digest != before.jobs[c].digest} == set(phases), changes


def test_touched_and_deleted_files_measure_nothing(finished: Path, again: Run) -> None:
    for path in [*ROOT.glob("workflow/**/*"), *ROOT.glob("src/**/*.py"), ROOT / "config.yaml", *(finished / "results").rglob("*.json")]:
        if path.is_file():
            path.touch()
    assert nothing(again("-n"))
    shutil.move(finished / "models", finished / "models.away")
    try:
        assert nothing(again("-n"))
    finally:
        shutil.move(finished / "models.away", finished / "models")


def test_making_the_model_or_the_engine_again_measures_nothing(spare: Path, in_spare: Run) -> None:
    before = contents(spare, "results/raw/**/*.parquet")
    done = in_spare("results/summary.txt", "--forcerun", "model", "gguf", "environment")
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(spare, "results/raw/**/*.parquet") == before
    assert not any(jobs(done)[phase] for phase in PHASES)
    assert nothing(in_spare("results/summary.txt", "-n"))


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
    program = str(Path(sys.executable).parent / "snakemake")
    command = [program, "-s", str(checkout / "Snakefile"), "--directory", str(finished), "--configfile", str(finished / "tiny.yaml"), "-n"]
    return subprocess.run([*command, "--nocolor"], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "line", "measured"),
    [
        (None, "", {}),
        ("src/coldprefix/measure/protocol.py", "# a comment", {}),
        ("src/coldprefix/measure/protocol.py", "CHANGED = 1", ALL),
        ("src/coldprefix/engines/vllm/arguments.py", "CHANGED = 1", cells("phase1", "phase2")),
        ("envs/llamacpp/requirements.txt", "# changed", cells("phase3a", "phase3b")),
        ("src/coldprefix/figures/style.py", "CHANGED = 1", {}),
    ],
)
def test_changed_code_measures_what_depends_on_it(
    checkout: Path, finished: Path, file: str | None, line: str, measured: dict[str, int]
) -> None:
    """A moved checkout or a comment measures nothing; a changed statement the cells whose numbers it could change."""
    original = (checkout / file).read_bytes() if file else b""
    if file:
        (checkout / file).write_bytes(original + f"\n{line}\n".encode())
    try:
        done = dry_run(checkout, finished)
        found = jobs(done)
        assert done.returncode == 0, done.stderr
        assert {phase: found[phase] for phase in PHASES if found[phase]} == measured
        assert nothing(done) == (line in ("", "# a comment"))
    finally:
        if file:
            (checkout / file).write_bytes(original)


@pytest.mark.parametrize("how", [["--rerun-triggers", "mtime"], ["--touch"]])
def test_old_cells_under_a_new_configuration_are_refused(spare: Path, in_spare: Run, how: list[str]) -> None:
    """Snakemake may be told to keep them: then aggregation names the cell and the key (snakemake#1694)."""
    change = ["--config", "question_tokens=9"]
    if how == ["--touch"]:
        assert in_spare("--touch", *change).returncode == 0
    (spare / "results/summary.txt").unlink()
    done = in_spare("--cores", "2", "results/summary.txt", *([] if how == ["--touch"] else how), *change)
    assert done.returncode != 0
    assert re.search(
        r"^coldprefix: phase\w+/A256_B128/hit was measured with kinds\.0\.lengths\.Q 8, the configuration asks for 9 now",
        output(done),
        re.M,
    )
    assert jobs(done).keys() <= {"aggregate", "total"}


def output(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def test_a_deleted_cell_is_measured_alone(finished: Path, again: Run) -> None:
    target = finished / "results/raw/phase3b/A256_B128/hit/requests.parquet"
    kept = target.read_bytes()
    target.unlink()
    try:
        found = jobs(again("-n"))
        assert found["phase3b"] == 1 and found["aggregate"] == 1 and not any(found[p] for p in PHASES[:3])
    finally:
        target.write_bytes(kept)


def test_forcerun_measures_one_phase_again_and_redraws_what_depends_on_it(again: Run) -> None:
    ran = jobs(again("-n", "--forcerun", "phase3b"))
    assert ran["phase3b"] == ALL["phase3b"] and not any(ran[phase] for phase in PHASES[:3])
    redrawn = {"experiment", "aggregate", "fig1_invalidation", *FIGURES, "claims", "peers", "report", "fig4_cascade"}
    assert set(ran) == {"phase3b", *redrawn, "all", "total"}


def test_forcerun_leaves_what_others_have_measured_as_it_is(spare: Path, in_spare: Run) -> None:
    """With one cell of the phase: what more of them would do is above."""
    before = contents(spare, "results/raw/**/*.parquet", "results/preflight/*", "models/*.gguf")
    done = in_spare("results/experiments/again/summary.txt", "--forcerun", "phase3b")
    assert done.returncode == 0, done.stderr[-3000:]
    after = contents(spare, "results/raw/**/*.parquet", "results/preflight/*", "models/*.gguf")
    assert after.keys() == before.keys()
    changed = {path for path in after if after[path] != before[path]}
    assert changed == {spare / "results/raw/phase3b/again/A256_B128/miss/requests.parquet"}
