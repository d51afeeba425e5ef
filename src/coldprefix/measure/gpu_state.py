"""What the GPUs do while a cell is measured: clocks, power, temperature and what holds them back, after each trial and outside the clock."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

# Bits of NVML's clocks event reasons; "idle" only says that nothing runs at the moment of the look.
REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
HELD_BACK = frozenset(REASONS.values()) - {"idle", "application clocks"}


class GpuState:
    """Looks at all NVIDIA GPUs of this machine; where there is none, or no nvidia-ml-py, there is nothing to see.

    Args:
        nvml: the module pynvml; imported if None.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml
        self._handles: list[Any] = []
        with suppress(Exception):  # NVMLError is pynvml's own, which may be missing
            if self._nvml is None:
                import pynvml

                self._nvml = pynvml
            self._nvml.nvmlInit()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._nvml.nvmlDeviceGetCount())]

    def after(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One entry for each GPU, of the moment after the trial whose first row this is: process, order (of that row), at (UTC), gpu, sm_mhz,
        memory_mhz, power_w, temperature_c, reasons (REASONS); None for what the driver does not tell."""
        named = {"process": row["process"], "order": row["order"], "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        return [named | {"gpu": i} | self._look(handle) for i, handle in enumerate(self._handles)]

    def _look(self, handle: Any) -> dict[str, Any]:
        def told(name: str, *arguments: Any) -> int | None:
            try:
                return int(getattr(self._nvml, name)(handle, *arguments))
            except Exception:  # not supported by this card or driver
                return None

        milliwatts = told("nvmlDeviceGetPowerUsage")
        bits = told("nvmlDeviceGetCurrentClocksEventReasons")
        bits = told("nvmlDeviceGetCurrentClocksThrottleReasons") if bits is None else bits
        return {
            "sm_mhz": told("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            "memory_mhz": told("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_MEM),
            "power_w": None if milliwatts is None else round(milliwatts / 1e3, 1),
            "temperature_c": told("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            "reasons": None if bits is None else [name for bit, name in REASONS.items() if bits & bit],
        }
