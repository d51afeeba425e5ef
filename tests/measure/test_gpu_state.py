"""The GPU's state after each trial, from NVML; nothing where there is no GPU."""

from __future__ import annotations

from typing import Any

import pytest

from coldprefix.measure.gpu_state import HELD_BACK, REASONS, GpuState

ROW = {"process": 1, "order": 40, "state": "miss"}


class Nvml:
    """Two cards; the second tells neither power nor reasons by the newer name."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, i: int) -> int:
        return i

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:
        return {1: 1980, 2: 3201}[clock]

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 41

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle:
            raise RuntimeError("Not Supported")
        return 412_345

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        if handle:
            raise AttributeError("an older driver")
        return 0x4 | 0x20

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return 0x1


def test_each_card_tells_clocks_power_and_what_holds_it_back() -> None:
    one, other = GpuState(Nvml()).after(ROW)
    assert (one["process"], one["order"], one["gpu"], other["gpu"]) == (1, 40, 0, 1)
    assert (one["sm_mhz"], one["memory_mhz"], one["temperature_c"], one["power_w"]) == (1980, 3201, 41, 412.3)
    assert one["reasons"] == ["software power cap", "software thermal slowdown"] and set(one["reasons"]) <= HELD_BACK
    assert other["power_w"] is None and other["reasons"] == ["idle"] and not HELD_BACK & set(other["reasons"])
    assert one["at"].endswith("+00:00")


def test_every_reason_has_one_bit() -> None:
    assert all(bit.bit_count() == 1 for bit in REASONS) and set(REASONS.values()) > HELD_BACK


@pytest.mark.parametrize("broken", [object(), None])
def test_without_a_driver_there_is_nothing_to_see(broken: Any) -> None:
    assert GpuState(broken).after(ROW) == []
