"""vLLM's servers die, hang or lie while a run is under way."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
import tampering
from fault_run import PATIENCE_S, SOON, TRIALS, Run, status_without_key, until

pytestmark = pytest.mark.engine

VLLM = "vLLM's servers"


def test_vllm_s_engine_core_dies_while_its_api_server_lives(vllm_run: Run) -> None:
    """And while it lived, it served nobody who had not shown its key (SECURITY.md says where it asks for that). Without the workflow, whose
    server is shared: test_vllm_s_processes."""
    told: list[int] = []

    def act() -> None:
        told.extend(status_without_key(str(proxy.real), path) for path in ("/v1/completions", "/health"))
        vllm_run.working("EngineCore").kill()

    vllm_run.program_alone()
    proxy = vllm_run.tamper(4, "stream", act=act)
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    message = r"phase1/\S+: vllm serve .*log"
    vllm_run.fails(VLLM, "SIGKILL to EngineCore in mid-stream", message, began=proxy.acted_at, within_s=30, repairs=False)
    assert told[0] == 401 and told[1] != 401, told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("SIGKILL to the API server", r"phase1/\S+: vllm serve (was ended by signal 9|ended while).*log"),
        ("SIGKILL to the supervisor", r"phase1/\S+: vllm serve ended while.*log"),
        ("SIGKILL to EngineCore", r"phase1/\S+: vllm serve .*log"),
        ("SIGSTOP to EngineCore", r"phase1/\S+: vllm serve gave no complete answer within 5 s \(timeout_s\).*log"),
        ("SIGKILL to the measuring job", ""),
        ("SIGKILL to Snakemake", r"phase1/\S+: ended by SIGTERM.*log"),
    ],
)
def test_vllm_s_processes(vllm_run: Run, fault: str, message: str) -> None:
    def act() -> None:
        how, who = fault.split(" to ")
        core = vllm_run.working("EngineCore")
        snakemake = psutil.Process(vllm_run.process.pid) if vllm_run.process else None
        target = {
            "EngineCore": core,
            "the API server": core.parent(),
            "the supervisor": psutil.Process(os.getsid(core.pid)),
            "the measuring job": vllm_run.program("measure.py"),
            "Snakemake": snakemake,
        }
        process = target[who]
        assert process is not None
        process.send_signal(signal.Signals[how])

    vllm_run.start(*(SOON[:2] if fault.startswith("SIGSTOP") else []))
    proxy = vllm_run.tamper(4, "stream", act=act)
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    snakemakes = r"Error in rule phase1:.*?log: \S+\.log" if not message else ""
    vllm_run.fails(VLLM, f"{fault} in mid-stream", message, began=proxy.acted_at, within_s=40, snakemakes=snakemakes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("500", "vllm serve answered 500: .*out of memory.*log"),
        ("truncated", "vllm serve (broke off|ended a stream).*log"),
        ("no usage", "vllm serve ended .*before its usage counts.*log"),
        ("no counts", f"of {TRIALS} trials are not what they were meant to be.*did not report how many tokens it reused.*log"),
        ("wrong counts", f"of {TRIALS} trials are not what they were meant to be.*reused 7 .*log"),
    ],
)
def test_vllm_s_spoilt_answers(vllm_run: Run, mode: str, message: str) -> None:
    vllm_run.start()
    proxy = vllm_run.tamper(0, "stream", spoil=tampering.SPOILT[mode])
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    vllm_run.fails(VLLM, f"answers: {mode}", rf"phase1/\S+: .*{message}", began=proxy.acted_at, within_s=30)
