"""Downloads against a Hub on this machine: models/hub.py, prepare_model.py and in_environment.py.

huggingface_hub reads its environment variables when it is imported, so each download is a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_table
import pytest
from conftest import ROOT
from hub_server import Cut, HubServer, Repository
from own_models import POSITIONS, TOKENS, write_gguf
from safetensors.numpy import load_file

from coldprefix.engines.contract import weights_of
from coldprefix.job import Job
from coldprefix.setup import environments

SCRIPTS = ROOT / "workflow" / "scripts"
MIB = 1024 * 1024
NAME = "tiny"
REPOSITORY = "somebody/tiny"
REVISION = "5" * 40
WEIGHTS = random.Random(1).randbytes(100_000)
CONFIG = {"architectures": ["GPT2LMHeadModel"], "n_positions": 1024, "vocab_size": 50257}
FILES = {"model.safetensors": WEIGHTS, "config.json": json.dumps(CONFIG).encode()}
TOKEN = "hf_" + "Secret" * 5

# A script as the workflow runs it, except that huggingface_hub's waits between its attempts take no time.
DRIVER = """
import runpy, sys, time
time.sleep = lambda seconds: print("slept", seconds, file=sys.stderr)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def says(message: str, *words: str) -> None:
    missing = [word for word in words if word not in message]
    assert not missing, message


def entry(files: Mapping[str, bytes | None] | None = None, **changes: Any) -> dict[str, Any]:
    """The model's entry in config.yaml; None for a file without a checksum."""
    listed = {file: content and sha256(content) for file, content in (FILES if files is None else files).items()}
    shape = {"architecture": "GPT2LMHeadModel", "positions": 1024, "vocabulary": 50257}
    return {"source": "hub", "repository": REPOSITORY, "revision": REVISION, "files": listed, **shape, **changes}


@dataclass
class User:
    """Somebody's folders, and what they type."""

    folder: Path
    endpoint: str

    def __post_init__(self) -> None:
        self.models = self.folder / "models"
        self.model = self.models / NAME
        self.first = self.folder / "results" / "setup" / "downloads" / f"{NAME}.json"
        self.record = self.folder / "records" / f"{NAME}.json"

    def run(self, script: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", DRIVER, SCRIPTS / script, *arguments]
        env = {
            key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_")) and "proxy" not in key.lower()
        }
        env |= {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.folder / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", **variables}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, cwd=self.folder)

    def prepare(self, model: dict[str, Any] | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("prepare_model.py", NAME, "--plan", self.plan(model or entry()), "--record", self.record, **variables)

    def plan(self, model: dict[str, Any], *jobs: Job) -> Path:
        """What Snakemake writes for its programs, as far as they read it here."""
        path = self.folder / "plan.json"
        path.write_text(json.dumps({"models": {NAME: model}, "cells": {job.cell: job.model_dump(mode="json") for job in jobs}}))
        return path

    def made(self) -> set[str]:
        """What is in models/, beside the lock that keeps two makers of a model apart."""
        return {path.name for path in self.models.iterdir()} - {f".{NAME}.lock"}

    def gets(self, model: dict[str, Any] | None = None, **variables: str) -> dict[str, Any]:
        """Prepare the model, which must succeed. Returns its record."""
        done = self.prepare(model, **variables)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        record: dict[str, Any] = json.loads((self.model / "coldprefix.json").read_text())
        assert json.loads(self.record.read_text()) == record
        assert self.made() == {NAME}
        return record

    def fails(self, model: dict[str, Any] | None = None, **variables: str) -> str:
        """Prepare the model, which must fail. Returns the one message."""
        message = self.message_of(self.prepare(model, **variables))
        test = re.sub(r".*::test_| \(.*|\[.*", "", os.environ["PYTEST_CURRENT_TEST"]).replace("_", " ")
        fault_table.record("Model files", test, message.replace(str(self.folder), "…"), "nothing")
        return message

    def message_of(self, done: subprocess.CompletedProcess[str]) -> str:
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert self.made() == set()
        message = done.stderr.rsplit("\ncoldprefix: ", 1)[1].strip()
        assert "\n" not in message
        return message

    def forget(self) -> None:
        """Another machine, or a cleaned one, with the records of the first downloads."""
        shutil.rmtree(self.models, ignore_errors=True)
        shutil.rmtree(self.folder / "hf", ignore_errors=True)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({REPOSITORY: Repository({REVISION: dict(FILES)})}) as server:
        yield server


@pytest.fixture
def user(hub: HubServer, tmp_path: Path) -> User:
    return User(tmp_path, hub.url)


# --- a download and what is left of it ---


def test_download(hub: HubServer, user: User) -> None:
    record = user.gets()
    assert {file: (user.model / file).read_bytes() for file in FILES} == FILES
    assert record["files"] == {file: {"bytes": len(content), "sha256": sha256(content)} for file, content in FILES.items()}
    assert (record["name"], record["source"], record["origin"], record["pickles"]) == (NAME, "hub", f"{REPOSITORY}@{REVISION}", {})
    assert [(r.file, r.status, r.sent) for r in hub.sent()] == [(file, 200, len(content)) for file, content in FILES.items()]
    hub.requests.clear()
    assert user.gets() == record
    assert hub.requests == []


def test_leftovers_of_a_killed_run_are_replaced(user: User) -> None:
    """Killed while it downloaded (.tiny.HOST.PID.part), or by an older version that wrote in place (no coldprefix.json)."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    for folder in (user.models / f".{NAME}.{socket.gethostname()}.{ended.pid}.part", user.model):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(WEIGHTS[:1000])
        (folder / "unknown").touch()
    user.gets()
    assert {p.name for p in user.model.iterdir()} == {*FILES, "coldprefix.json"}
    assert (user.model / "model.safetensors").read_bytes() == WEIGHTS


def test_nothing_is_left_of_an_incomplete_download(hub: HubServer, user: User) -> None:
    del hub.repositories[REPOSITORY].files[REVISION]["config.json"]
    user.fails()
    assert [r.file for r in hub.sent()] == ["model.safetensors"]
    hub.repositories[REPOSITORY].files[REVISION] = FILES
    user.gets()
    assert [r.file for r in hub.sent()] == ["model.safetensors", "config.json"]  # what was complete is in the cache


def test_a_damaged_model_is_made_again(hub: HubServer, user: User) -> None:
    record = user.gets()
    (user.model / "model.safetensors").write_bytes(WEIGHTS[:-1])
    assert user.gets() == record
    assert (user.model / "model.safetensors").read_bytes() == WEIGHTS


def test_file_in_a_folder(hub: HubServer, user: User) -> None:
    files = {**FILES, "onnx/more.json": b"{}"}
    hub.repositories[REPOSITORY].files[REVISION] = files
    assert set(user.gets(entry(files))["files"]) == set(files)
    assert (user.model / "onnx" / "more.json").read_bytes() == b"{}"


# --- checksums ---


@pytest.mark.parametrize("file", FILES)
def test_wrong_checksum(hub: HubServer, user: User, file: str) -> None:
    hub.damaged = {file}
    message = user.fails()
    says(message, file, sha256(FILES[file]), sha256(bytes(len(FILES[file]))))
    says(message, f"models.{NAME}.files", "run again")
    hub.damaged = set()
    hub.requests.clear()
    user.gets()
    assert file in [r.file for r in hub.sent()]


def test_a_wrong_digit_in_config_yaml_leaves_the_cache_alone(hub: HubServer, user: User) -> None:
    """It is the user's, shared by all their tools, and may be the last copy where there is no network."""
    user.gets()
    shutil.rmtree(user.models)
    blobs = {path: path.read_bytes() for path in user.folder.glob("hf/hub/*/blobs/*")}
    assert len(blobs) == len(FILES)
    wrong = entry()
    wrong["files"]["model.safetensors"] = sha256(b"something else")
    message = user.fails(wrong, HF_HUB_OFFLINE="1")
    says(message, sha256(WEIGHTS), sha256(b"something else"), "correct config.yaml")
    assert {path: path.read_bytes() for path in user.folder.glob("hf/hub/*/blobs/*")} == blobs
    user.gets(HF_HUB_OFFLINE="1")


def test_a_model_shares_nothing_with_the_cache(user: User) -> None:
    """Who edits models/NAME must not edit what other tools read."""
    user.gets()
    for file in FILES:
        assert (user.model / file).stat().st_nlink == 1 and not (user.model / file).is_symlink()
    (user.model / "config.json").write_text("{}")
    assert {path.read_bytes() for path in user.folder.glob("hf/hub/*/blobs/*")} == set(FILES.values())


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_what_the_hub_calls_it_is_never_recorded(hub: HubServer, user: User, file: str) -> None:
    """Not even where config.yaml has no checksum: a blob's name says what is in it."""
    model = entry(dict.fromkeys(FILES))
    hub.damaged = {file}
    says(user.fails(model), file, "is not what the Hub calls it", "run again")
    assert not user.first.exists()
    hub.damaged = set()
    assert user.gets(model)["files"][file]["sha256"] == sha256(FILES[file])


def test_file_without_checksum(hub: HubServer, user: User, make_job: Callable[..., Job]) -> None:
    """The first download records it and says so; later ones must agree."""
    model = entry({**FILES, "config.json": None})
    done = user.prepare(model)
    assert f"no checksum in config.yaml for config.json; this download's is {sha256(FILES['config.json'])}, recorded" in done.stderr
    assert "for model.safetensors" not in done.stderr
    first = json.loads(user.first.read_text())
    assert first["files"]["config.json"]["sha256"] == sha256(FILES["config.json"])

    user.forget()
    changed = json.dumps({**CONFIG, "note": "changed"}).encode()
    hub.repositories[REPOSITORY].files[REVISION] = {**FILES, "config.json": changed}
    job = make_job("phase1", "hit", {f"models.{NAME}": model, "model": NAME}).model_copy(update={"environment": "driver"})
    restored = user.run("in_environment.py", "measure", "--plan", user.plan(model, job), "--cell", job.cell)
    for message in (user.message_of(restored), user.fails(model)):
        says(message, sha256(FILES["config.json"]), sha256(changed), "first download")
        says(message, user.first.name)
    assert json.loads(user.first.read_text()) == first

    # Whole as the Hub sent it, so it stays in the cache; who believes that it is the file which is wrong deletes it there.
    hub.repositories[REPOSITORY].files[REVISION] = FILES
    message = user.fails(model)
    says(message, "delete ")
    blob = Path(re.findall(r"to download it anew, delete (\S+),", message)[0])
    assert blob.read_bytes() == changed and blob.is_relative_to(user.folder / "hf")
    blob.unlink()
    done = user.prepare(model)
    assert done.returncode == 0, done.stderr
    assert "no checksum" not in done.stderr
    assert json.loads(user.first.read_text()) == first


def test_first_downloads_are_those_of_a_revision(hub: HubServer, user: User) -> None:
    """Another revision may hold other files, and a file that is listed later is recorded too."""
    nulls: dict[str, bytes | None] = dict.fromkeys(FILES)
    user.gets(entry(nulls))
    newer = "6" * 40
    hub.repositories[REPOSITORY].files[newer] = {"model.safetensors": WEIGHTS[::-1], "config.json": FILES["config.json"], "more.json": b"1"}
    user.gets(entry(nulls, revision=newer))
    assert json.loads(user.first.read_text())["files"]["model.safetensors"]["sha256"] == sha256(WEIGHTS[::-1])

    more = entry({**nulls, "more.json": None}, revision=newer)
    user.gets(more)
    user.forget()
    hub.repositories[REPOSITORY].files[newer]["more.json"] = b"2"
    assert "more.json" in user.fails(more)


# --- GGUF files ---


@pytest.mark.parametrize("per_part", [0, 1])
def test_gguf_files_are_downloaded_in_the_place_of_safetensors(hub: HubServer, user: User, per_part: int) -> None:
    first = write_gguf(user.folder / "made" / "m-Q8_0.gguf", per_part=per_part)
    files: dict[str, bytes | None] = {path.name: path.read_bytes() for path in sorted(first.parent.iterdir())}
    hub.repositories[REPOSITORY].files[REVISION] = {file: content for file, content in files.items() if content}
    shape = {"architecture": "llama", "positions": POSITIONS, "vocabulary": TOKENS}
    record = user.gets(entry(files, **shape))
    assert record["weights"] == {"gguf": f"{NAME}/{first.name}"}
    assert (weights_of(user.models, NAME, "gguf")).read_bytes() == first.read_bytes()
    done = user.run("prepare_model.py", NAME, "--plan", user.plan(entry(files, **shape)), "--weights", "gguf", "--record", user.record)
    assert done.returncode == 0, done.stderr
    assert json.loads(user.record.read_text())["file_type"] == "Q8_0"
    user.forget()
    assert user.fails(entry(files, **{**shape, "positions": 64})) == (
        f"models.{NAME}.positions is 64, the model's GGUF file says {POSITIONS}; correct config.yaml"
    )


def test_a_gguf_file_that_the_hub_has_in_part_only_is_refused(hub: HubServer, user: User) -> None:
    whole = write_gguf(user.folder / "made" / "m.gguf").read_bytes()
    hub.repositories[REPOSITORY].files[REVISION] = {"m.gguf": whole[:-40]}
    shape = {"architecture": "llama", "positions": POSITIONS, "vocabulary": TOKENS}
    assert "not a whole one" in user.fails(entry({"m.gguf": whole[:-40]}, **shape))


# --- the connection ---


def test_cut_connection_is_resumed(hub: HubServer, user: User) -> None:
    """No byte is sent twice. huggingface_hub keeps whole pieces of 10 MiB, hence the larger file."""
    weights = WEIGHTS * 210
    assert len(weights) > 20 * MIB
    hub.repositories[REPOSITORY].files[REVISION] = {**FILES, "model.safetensors": weights}
    hub.cut = Cut(after=10 * MIB)
    user.gets(entry({**FILES, "model.safetensors": weights}))
    sent = [(r.status, r.range, r.sent) for r in hub.sent() if r.file == "model.safetensors"]
    assert sent == [(200, None, 10 * MIB), (206, f"bytes={10 * MIB}-", len(weights) - 10 * MIB)]
    assert (user.model / "model.safetensors").read_bytes() == weights


def test_server_without_ranges(hub: HubServer, user: User) -> None:
    """It answers the request to resume with the whole file."""
    weights = WEIGHTS * 120
    hub.repositories[REPOSITORY].files[REVISION] = {**FILES, "model.safetensors": weights}
    hub.cut, hub.ranges = Cut(after=11 * MIB), False
    user.gets(entry({**FILES, "model.safetensors": weights}))
    assert [r.status for r in hub.sent() if r.range] == [200]


def test_reset_connection(hub: HubServer, user: User) -> None:
    """huggingface_hub gives up at a reset."""
    hub.cut = Cut(after=50_000, reset=True)
    user.gets()
    assert [r.file for r in hub.sent()] == ["model.safetensors", *FILES]


@pytest.mark.parametrize("reset", [False, True])
def test_connection_that_breaks_again_and_again(hub: HubServer, user: User, reset: bool) -> None:
    hub.cut, hub.users = Cut(after=50_000, times=99, reset=reset), {TOKEN}
    message = user.fails(HF_TOKEN=TOKEN)
    assert message.startswith(f"cannot download model.safetensors of {REPOSITORY} at {REVISION[:12]} (models.{NAME}): no connection")
    says(message, hub.cdn_url.removeprefix("http://"), "run again")
    assert len(hub.sent()) < 10


def test_renamed_repository(hub: HubServer, user: User) -> None:
    hub.renamed = {"old/tiny": REPOSITORY}
    user.gets(entry(repository="old/tiny"))


def test_busy_hub(hub: HubServer, user: User) -> None:
    hub.failing = {"HEAD": (429, {"Retry-After": "7"}, 2)}
    assert "slept 8" in user.prepare().stderr
    assert user.model.exists()


# --- refusals: what happened, where, what to do ---


@pytest.mark.parametrize("token", [{}, {"HF_TOKEN": TOKEN}])
def test_missing_repository(hub: HubServer, user: User, token: dict[str, str]) -> None:
    hub.users = {TOKEN}
    message = user.fails(entry(repository="somebody/else"), **token)
    assert hub.requests[0].status == (404 if token else 401)
    says(message, "model.safetensors of somebody/else", "no such repository, or it is private", "HF_TOKEN")


def test_missing_revision(user: User) -> None:
    message = user.fails(entry(revision="7" * 40))
    says(message, "777777777777", "no such revision", "its page")


def test_missing_file(user: User) -> None:
    message = user.fails(entry({**FILES, "tokenizer.json": None}))
    says(message, "tokenizer.json", "no such file at this revision")


def test_repository_that_offers_only_pickles(hub: HubServer, user: User) -> None:
    hub.repositories[REPOSITORY].files[REVISION] = {"pytorch_model.bin": b"x", "config.json": FILES["config.json"]}
    says(user.fails(), "model.safetensors", "no such file at this revision", "pickle", "convert_pickle")
    assert not [r for r in hub.requests if "pytorch_model.bin" in r.path], "it is not even downloaded"


@pytest.mark.parametrize("token", [{}, {"HF_TOKEN": TOKEN}])
def test_gated_repository(hub: HubServer, user: User, token: dict[str, str]) -> None:
    hub.repositories[REPOSITORY].access, hub.users = "gated", {TOKEN}
    message = user.fails(entry(), **token)
    assert hub.requests[0].status == (403 if token else 401)
    says(message, "access must be granted", "HF_TOKEN")


def test_invalid_token(user: User) -> None:
    message = user.fails(HF_TOKEN=TOKEN)
    says(message, "401 Invalid credentials", "HF_TOKEN", "public models need none")


@pytest.mark.parametrize(
    ("method", "status", "headers", "words"),
    [
        ("HEAD", 403, {"X-Error-Message": "No read permission"}, ("403 No read permission", "the token in HF_TOKEN lacks")),
        ("HEAD", 429, {"Retry-After": "120"}, ("429", "too many requests", "wait 120 s and run again", "HF_TOKEN")),
        ("GET", 429, {}, ("429", "too many requests", "wait 300 s and run again")),
        ("HEAD", 503, {}, ("503 Service Unavailable", "wait and run again")),
        ("GET", 500, {}, ("500", "wait and run again")),
    ],
)
def test_hub_answers_with_an_error(
    hub: HubServer, user: User, method: str, status: int, headers: dict[str, str], words: tuple[str, ...]
) -> None:
    hub.failing = {method: (status, headers, 99)}
    message = user.fails()
    says(message, f"{(hub.url if method == 'HEAD' else hub.cdn_url).removeprefix('http://')} answered")  # the CDN is another host
    says(message, *words)
    assert "signature" not in message


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        message = User(tmp_path, f"http://{address}").fails()
    says(message, f"no connection to {address}", "refused", "HF_ENDPOINT", "gpt2-standin")


def test_endpoint_without_scheme(tmp_path: Path) -> None:
    message = User(tmp_path, "hub.example").fails()
    says(message, "http://", "HF_ENDPOINT")


def test_what_answers_is_no_hub(hub: HubServer, user: User) -> None:
    hub.stranger = True
    message = user.fails()
    says(message, "not a Hub", "HF_ENDPOINT", "login")


def test_xet_storage_out_of_reach(hub: HubServer, user: User) -> None:
    hub.xet = True
    assert "HF_HUB_DISABLE_XET=1" in user.fails()
    user.gets(HF_HUB_DISABLE_XET="1")


def test_cache_that_cannot_be_written(user: User) -> None:
    message = user.fails(HF_HOME=os.devnull)
    says(message, f"{os.devnull}/hub", "HF_HOME")


def test_name_that_the_hub_does_not_allow(user: User) -> None:
    assert "somebody/ti--ny" in user.fails(entry(repository="somebody/ti--ny"))


# --- offline ---


def test_offline(hub: HubServer, user: User) -> None:
    message = user.fails(HF_HUB_OFFLINE="1")
    says(message, "HF_HUB_OFFLINE is set", str(user.folder / "hf"), "gpt2-standin")
    user.gets()
    shutil.rmtree(user.models)
    hub.requests.clear()
    user.gets(HF_HUB_OFFLINE="1")
    assert hub.requests == []


# --- the token ---


@pytest.mark.parametrize("access", ["private", "gated"])
def test_token(hub: HubServer, user: User, access: Any) -> None:
    """It is sent to the Hub, not to the CDN, and neither printed nor written."""
    hub.repositories[REPOSITORY].access, hub.readers = access, {TOKEN}
    user.gets(HF_TOKEN=TOKEN)
    asked_cdn = [r for r in hub.requests if r.path.startswith("/cdn/")]
    assert [r.headers["Authorization"] for r in asked_cdn] == [None]
    assert {r.headers["Authorization"] for r in hub.requests if r not in asked_cdn} == {f"Bearer {TOKEN}"}
    assert not [p for p in user.folder.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]


def test_token_with_a_character_that_no_token_has(user: User) -> None:
    assert "HF_TOKEN" in user.fails(HF_TOKEN=TOKEN + "ä")


# --- config.json must say what config.yaml says ---


@pytest.mark.parametrize(
    ("key", "theirs", "ours"),
    [
        ("positions", {"n_positions": 512}, 1024),
        ("vocabulary", {"vocab_size": 300}, 50257),
        ("architecture", {"architectures": ["X"]}, "GPT2LMHeadModel"),
    ],
)
def test_config_json_contradicts(hub: HubServer, user: User, key: str, theirs: dict[str, Any], ours: object) -> None:
    files = {**FILES, "config.json": json.dumps({**CONFIG, **theirs}).encode()}
    hub.repositories[REPOSITORY].files[REVISION] = files
    (value,) = theirs.values()
    real = value[0] if isinstance(value, list) else value
    assert user.fails(entry(files)) == f"models.{NAME}.{key} is {ours!r}, the model's config.json says {real!r}; correct config.yaml"
    assert user.gets(entry(files, **{key: real}))["files"]


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b"\xff"])
def test_config_json_is_none(hub: HubServer, user: User, content: bytes) -> None:
    files = {**FILES, "config.json": content}
    hub.repositories[REPOSITORY].files[REVISION] = files
    assert "config.json of the model tiny" in user.fails(entry(files))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("deep", [False, True])
def test_repository_that_asks_for_its_code_to_be_run(hub: HubServer, user: User, file: str, deep: bool) -> None:
    """llama.cpp's converter would do that for some architectures, with classes of any repository that is named."""
    asking: dict[str, Any] = {"auto_map": {"AutoTokenizer": ["evil/repo--tok.Cls", None]}}
    asking = {**(CONFIG if file == "config.json" else {}), **({"text_config": [asking]} if deep else asking)}
    files = {**FILES, file: json.dumps(asking).encode()}
    hub.repositories[REPOSITORY].files[REVISION] = files
    says(user.fails(entry(files)), file, "asks to run code of", "evil/repo--tok.Cls", "auto_map")


# --- weights that exist as a pickle only ---

MAKE_PICKLES = """
import os, sys, torch
folder = sys.argv[1]
embedding = torch.arange(24, dtype=torch.float16).reshape(6, 4)
common = {"model.decoder.embed_tokens.weight": embedding, "model.decoder.layers.0.fc1.weight": torch.ones(4, 2).T}
torch.save({**common, "lm_head.weight": embedding}, f"{folder}/tied")
torch.save({**common, "lm_head.weight": embedding + 1}, f"{folder}/untied")
torch.save({"model": common}, f"{folder}/nested")
class Malicious:
    def __reduce__(self):
        return os.system, (f"touch {folder}/executed",)
torch.save({**common, "x": Malicious()}, f"{folder}/malicious")
"""


@pytest.fixture(scope="module")
def pickles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pickles")
    subprocess.run([environments.ensure_environment("convert") / "bin" / "python", "-c", MAKE_PICKLES, folder], check=True)
    (folder / "damaged").write_bytes((folder / "tied").read_bytes()[:500])
    return folder


def offer_pickle(hub: HubServer, content: bytes) -> dict[str, Any]:
    """Put weights into the repository as OPT's are. Returns the entry, without checksums as opt-125m's."""
    config = {"architectures": ["OPTForCausalLM"], "max_position_embeddings": 2048, "vocab_size": 50272}
    hub.repositories[REPOSITORY].files[REVISION] = {"pytorch_model.bin": content, "config.json": json.dumps(config).encode()}
    files: dict[str, bytes | None] = {"pytorch_model.bin": None, "config.json": None}
    return entry(files, convert_pickle="pytorch_model.bin", architecture="OPTForCausalLM", positions=2048, vocabulary=50272)


@pytest.mark.engine
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_pickle_becomes_safetensors(hub: HubServer, user: User, pickles: Path, kind: str) -> None:
    content = (pickles / kind).read_bytes()
    record = user.gets(offer_pickle(hub, content))
    assert set(record["files"]) == {"config.json", "model.safetensors"}
    assert record["pickles"] == {"pytorch_model.bin": sha256(content)}
    tensors = load_file(user.model / "model.safetensors")
    embedding = [[float(4 * row + column) for column in range(4)] for row in range(6)]
    expected = {
        "model.decoder.embed_tokens.weight": ["float16", embedding],
        "model.decoder.layers.0.fc1.weight": ["float32", [[1.0] * 4] * 2],
    }
    if kind == "untied":
        expected["lm_head.weight"] = ["float16", [[x + 1 for x in row] for row in embedding]]
    assert {name: [str(tensor.dtype), tensor.tolist()] for name, tensor in tensors.items()} == expected

    user.forget()
    model = offer_pickle(hub, content[::-1])
    message = user.fails(model)  # the checksum of a pickle is recorded too, although the pickle is not kept
    says(message, "pytorch_model.bin", sha256(content))


@pytest.mark.engine
@pytest.mark.parametrize(("kind", "word"), [("malicious", "posix.system"), ("nested", "one tensor per name"), ("damaged", "damaged")])
def test_pickle_is_refused(hub: HubServer, user: User, pickles: Path, kind: str, word: str) -> None:
    message = user.fails(offer_pickle(hub, (pickles / kind).read_bytes()))
    says(message, f"cannot convert pytorch_model.bin (models.{NAME}.convert_pickle): it", word)
    assert "weights_only" not in message  # torch recommends to switch it off
    assert not (pickles / "executed").exists()
