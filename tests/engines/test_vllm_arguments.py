"""What vLLM is started with: eager or CUDA graphs, asynchronous scheduling, and what must be found at its start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coldprefix.engines.vllm.arguments import arguments, check_compiler, environment
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job


@pytest.mark.parametrize(
    ("accelerator", "asked", "eager"), [("cpu", "auto", True), ("cuda", "auto", False), ("cuda", True, True), ("cpu", False, False)]
)
def test_auto_is_eager_on_cpu_and_cuda_graphs_on_cuda(make_job: Callable[..., Job], accelerator: str, asked: object, eager: bool) -> None:
    told = arguments(make_job("phase1", "hit", {"accelerator": accelerator, "vllm.enforce_eager": asked}))
    assert told["enforce_eager"] is eager
    # A hit computes a few dozen tokens: graphs for one sequence at a time, as vLLM would choose them, would leave it out.
    assert told.get("max_cudagraph_capture_size") == (512 if accelerator == "cuda" and not eager else None)


def test_several_servers_of_a_run_fit_one_card(make_job: Callable[..., Job]) -> None:
    """vLLM refuses to start where less than this share of the card is free, whatever its pool takes."""
    told = arguments(make_job("phase1", "hit", {"accelerator": "cuda", "vllm.kv_cache_gib": 3}))
    assert told["gpu_memory_utilization"] <= 0.1 and told["kv_cache_memory_bytes"] == 3 * 2**30
    assert "gpu_memory_utilization" not in arguments(make_job("phase1", "hit", {"accelerator": "cpu"}))


@pytest.mark.parametrize("asked", ["auto", True, False])
def test_asynchronous_scheduling_is_the_engines_own_unless_it_is_asked_for(make_job: Callable[..., Job], asked: object) -> None:
    told = arguments(make_job("phase2", "hit", {"vllm.async_scheduling": asked}))
    assert told.get("async_scheduling", "auto") == asked


def test_the_engine_finds_the_programs_of_its_own_environment_first(make_job: Callable[..., Job]) -> None:
    assert environment(make_job("phase1", "hit"))["PATH"].split(":")[0] == str(Path(sys.executable).parent)


def test_a_missing_c_compiler_is_named_before_the_engine_starts(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_compiler(make_job("phase1", "hit", {"accelerator": "cpu"}))
    with pytest.raises(ColdprefixError, match=r"phase1/A512_B256/hit: vLLM on cuda needs a C compiler.*apt-get install gcc"):
        check_compiler(make_job("phase1", "hit", {"accelerator": "cuda"}))
    (tmp_path / "gcc").symlink_to(sys.executable)
    check_compiler(make_job("phase1", "hit", {"accelerator": "cuda"}))
