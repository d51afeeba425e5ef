"""What an engine was found not to run is kept by the content of both, and used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coldprefix.errors import ColdprefixError, Refused
from coldprefix.job import Job
from coldprefix.process.in_process import InProcess
from coldprefix.setup import building, refusals

MakeJob = Callable[..., Job]
WHY = "vLLM failed on a prompt of 64 tokens: IndexError('index 4 is out of bounds')"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(building, "CACHE", tmp_path)
    return tmp_path


def test_what_was_found_is_said_before_anything_is_done_and_names_its_file(make_job: MakeJob, cache: Path) -> None:
    job = make_job("phase2", "hit")
    assert refusals.known(job) is None
    refusals.check([job])
    refusals.keep(job, Refused(f"{WHY}\nThe end of a log:\nmuch"))
    (kept,) = (cache / "refusals").iterdir()
    with pytest.raises(ColdprefixError) as caught:
        refusals.check([make_job("phase1", "hit"), job])
    message = str(caught.value)
    assert f"phase2 cannot run gpt2-standin: {WHY} (found on 20" in message and str(kept) in message
    assert "phase1" not in message and "much" not in message
    kept.unlink()
    refusals.check([job])


@pytest.mark.parametrize(
    "changes",
    [{"vllm.dtype": "float32"}, {"model": "gpt2-tiny"}, {"accelerator": "cuda"}],
)
def test_another_content_is_asked_again(make_job: MakeJob, changes: dict[str, object]) -> None:
    base = {"accelerator": "cpu", "experiments": ["main"]}
    refusals.keep(make_job("phase2", "hit", base), Refused(WHY))
    assert refusals.known(make_job("phase2", "hit", base | changes)) is None
    assert refusals.known(make_job("phase2", "hit", base)) is not None


def test_another_build_or_lock_is_asked_again(make_job: MakeJob) -> None:
    job = make_job("phase2", "hit")
    refusals.keep(job, Refused(WHY))
    for key in ("environment_key", "engine_key", "code"):
        assert refusals.known(job.model_copy(update={key: "another"})) is None
    assert refusals.known(job.model_copy(update={"threads": 7})) is not None, "how fast it computes decides nothing"


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(make_job: MakeJob) -> None:
    job = make_job("phase2", "hit")
    refusals.keep(job, Refused(WHY))
    refusals.place(job).write_text("{")
    with pytest.raises(ColdprefixError, match="refusals"):
        refusals.check([job])


@pytest.mark.parametrize(("error", "kind"), [(IndexError("4"), Refused), (RuntimeError("no memory"), ColdprefixError)])
def test_only_what_is_the_same_each_time_is_a_refusal(tmp_path: Path, error: Exception, kind: type[ColdprefixError]) -> None:
    here = InProcess("phase2/cell", "vLLM", tmp_path / "log", {}, 60.0, 60.0)
    try:
        with pytest.raises(ColdprefixError) as caught, here.answering(64):
            raise error
    finally:
        here.close()
    assert type(caught.value) is kind
