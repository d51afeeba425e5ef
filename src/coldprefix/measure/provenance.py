"""Where and with what a cell was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil

from coldprefix import __version__
from coldprefix.process.identity import machine
from coldprefix.setup.building import CACHE, ROOT

# What a path begins with, and what stands in its place: records are published, and where folders lie changes no number.
PLACES = {
    CACHE: "$COLDPREFIX_CACHE",
    ROOT: "$COLDPREFIX",
    Path.cwd(): "$RUN",
    Path(tempfile.gettempdir()): "$TMPDIR",
    Path.home(): "$HOME",
}


def without_places(value: Any) -> Any:
    """A record with a word in the place of each folder of this machine that it names: $COLDPREFIX_CACHE, $COLDPREFIX (the checkout), $RUN
    (where Snakemake runs), $TMPDIR, $HOME."""
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(each) for each in value]
    if isinstance(value, str):
        for place, word in PLACES.items():
            parts = re.split(rf"{re.escape(str(place))}(?=/|$|[\s'\",;:])", value)
            value = word.join(parts)
    return value


def _first(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def cpu_name() -> str:
    match = re.search(r"^model name\s*: (.*)$", _first("/proc/cpuinfo") or "", re.M)
    return match[1] if match else platform.processor() or platform.machine()


def gpus() -> list[dict[str, Any]]:
    """Name, memory, driver, clocks and the time it was throttled so far of each NVIDIA GPU; empty where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return []
    try:
        found = []
        for i in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(i)
            found.append(
                {
                    "name": pynvml.nvmlDeviceGetName(handle),
                    "memory_mib": pynvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20,
                    "driver": pynvml.nvmlSystemGetDriverVersion(),
                    "sm_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
                    "temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
                    "thermal_violation_ns": _violation_ns(pynvml, handle, pynvml.NVML_PERF_POLICY_THERMAL),
                    "power_violation_ns": _violation_ns(pynvml, handle, pynvml.NVML_PERF_POLICY_POWER),
                }
            )
        return found
    finally:
        pynvml.nvmlShutdown()


def _violation_ns(pynvml: Any, handle: Any, policy: int) -> int | None:
    """How long the driver has held a GPU back for a reason, since it was loaded; None where it does not count that."""
    try:
        return int(pynvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime)
    except pynvml.NVMLError:
        return None


def host() -> dict[str, Any]:
    """The machine, as far as numbers depend on it."""
    return {
        "machine": machine(),
        "slurm": slurm(),
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "governor": _first("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "system": platform.system(),
        "load_1min": os.getloadavg()[0],
        "gpus": gpus(),
    }


def slurm() -> dict[str, str | None] | None:
    """The SLURM job that this program runs in: its id, partition and node; None outside of SLURM."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    return {
        name: os.environ.get(f"SLURM{key}") for name, key in (("job", "_JOB_ID"), ("partition", "_JOB_PARTITION"), ("node", "D_NODENAME"))
    }


def commit() -> str | None:
    """The commit of this checkout, "+" if it has been changed since; None outside git."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def software() -> dict[str, Any]:
    return {"coldprefix": __version__, "commit": commit(), "python": platform.python_version()}
