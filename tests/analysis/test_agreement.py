"""Settings of the two interfaces of an engine must agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from coldprefix.analysis.agreement import disagreements
from coldprefix.engines.contract import load
from coldprefix.engines.llamacpp.log import settings_from_log, slot_tokens
from coldprefix.errors import ColdprefixError

MUST_AGREE = load("llamacpp").must_agree


def record(phase: str, interface: str, **changes: Any) -> dict[str, Any]:
    in_force = dict.fromkeys(MUST_AGREE, 1) | {"host_cache_mib": 0, "command": None} | changes
    return {"phase": phase, "engine": "llamacpp", "interface": interface, "model": "m", "in_force": in_force}


def compare(folder: Path, *records: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    paths = []
    for item in records:
        path = folder / f"{item['phase']}.json"
        path.write_text(json.dumps(item))
        paths.append(str(path))
    command = [sys.executable, str(ROOT / "workflow/scripts/compare_settings.py"), "--out", str(folder / "agreed.json"), *paths]
    return subprocess.run(command, capture_output=True, text=True)


def test_equal_settings_agree_whatever_differs_by_design(tmp_path: Path) -> None:
    done = compare(tmp_path, record("phase3a", "http", command=["llama-server"]), record("phase3b", "python"))
    assert done.returncode == 0
    assert set(json.loads((tmp_path / "agreed.json").read_text())) == {"phase3a", "phase3b"}


@pytest.mark.parametrize("key", MUST_AGREE)
def test_a_difference_is_an_error_that_shows_both(tmp_path: Path, key: str) -> None:
    done = compare(tmp_path, record("phase3a", "http"), record("phase3b", "python", **{key: "other"}))
    assert done.returncode == 1 and not (tmp_path / "agreed.json").exists()
    assert f"  {key:<20} {1:<32} other" in done.stderr
    assert "phase3a (http)" in done.stderr and "phase3b (python)" in done.stderr and "Traceback" not in done.stderr


def test_other_models_have_nothing_to_agree_on() -> None:
    disagreements(record("phase3a", "http"), record("phase3b", "python", context_tokens=2) | {"model": "other"})


LOG = """
llama_context: n_seq_max             = 1
llama_context: n_ctx                 = 64
llama_context: n_ctx_seq             = 64
llama_context: n_seq_max             = 1
llama_context: n_ctx                 = 1024
llama_context: n_ctx_seq             = 1024
llama_context: n_batch               = 1024
llama_context: n_ubatch              = 512
llama_context: flash_attn            = enabled
llama_context: kv_unified            = false
llama_kv_cache: size =   36.00 MiB (  1024 cells,  12 layers,  1/1 seqs), K (f16):   18.00 MiB, V (f16):   18.00 MiB
"""


def test_llamacpp_s_log_is_read_at_its_last_context() -> None:
    found = settings_from_log(LOG)
    assert found["context_tokens"] == 1024 and found["batch_tokens"] == 1024 and found["ubatch_tokens"] == 512
    assert found["kv_bytes_per_token"] == 36_864  # claim C7 of the study: 2 x 12 layers x 768 x 2 bytes
    assert found["flash_attention"] == "enabled" and found["kv_dtype"] == "f16/f16" and found["gpu_layers"] == "0"


def test_a_cache_is_padded_and_a_slot_is_not_longer_than_its_model() -> None:
    """As llama-server's /props say, of a model of 640 tokens, whose cache has 768."""
    assert slot_tokens(768, "print_info: n_ctx_train           = 640\n") == 640
    assert slot_tokens(768, "print_info: n_ctx_train           = 8192\n") == slot_tokens(768, "") == 768


def test_a_log_that_changed_its_wording_is_an_error() -> None:
    with pytest.raises(ColdprefixError, match="n_ubatch; is its disk full, or has its wording changed"):
        settings_from_log(LOG.replace("n_ubatch", "micro_batch"))
