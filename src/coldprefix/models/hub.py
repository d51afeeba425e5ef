"""Downloads from the Hugging Face Hub: pinned revision, named files, sha256 of each.

huggingface_hub does the transfer. It respects HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and HF_TOKEN, keeps finished files in the
cache of the user's other tools, and resumes a file whose connection breaks. A file that a later run asks for again starts anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from coldprefix.errors import NO_SPACE, ColdprefixError, no_space
from coldprefix.files import sha256_of_file
from coldprefix.models.contract import ModelEntry
from coldprefix.models.convert import unpickle
from coldprefix.models.gguf_file import parts_of
from coldprefix.setup.building import say

if TYPE_CHECKING:
    import httpx2

RESETS = 3  # of the connection, per file
FICLONE = 0x40049409  # of Linux's ioctl: a file that shares its blocks with another until one of them is changed
TYPE = re.compile(r"(?i)(?<![a-z0-9])(i?q\d_\w+|[bf]+(?:16|32)|mxfp4\w*)(?![a-z0-9])")  # in the name of a GGUF file
NO_NETWORK = "The stand-in models need no network (model: gpt2-standin)"


RepositoryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", description="owner/name")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="A full commit hash, never a branch: a branch moves.")]


class Repository(Protocol):
    """Files of a Hub repository at a pinned revision: what a download needs to know."""

    @property
    def repository(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def files(self) -> Mapping[str, str | None]: ...


class HubModel(ModelEntry):
    """A repository of the Hugging Face Hub at a pinned revision."""

    source: Literal["hub"]
    repository: RepositoryName
    revision: Revision
    files: dict[str, str | None] = Field(
        min_length=1,
        description="File name: sha256. Null: the first download records it, says so, and later ones must agree. Safetensors with config.json "
        "and tokenizer; or a GGUF file, with all its parts if it is split, for the llama.cpp phases only.",
    )
    convert_pickle: str | None = Field(
        default=None,
        description="A file of weights that exists as a pickle only. It is read with torch.load(weights_only=True) and written as "
        "model.safetensors; no engine sees the pickle.",
    )

    @property
    def origin(self) -> str:
        return f"{self.repository}@{self.revision}"

    @property
    def gguf(self) -> str | None:
        return next((file for file in sorted(self.files) if file.endswith(".gguf")), None)

    @property
    def gguf_type(self) -> str:
        """As the name of the file says it: the plan is made before it is downloaded."""
        if self.gguf is None:
            return super().gguf_type
        named = TYPE.findall(Path(self.gguf).name)
        return str(named[-1]).upper() if named else "GGUF"

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        for file in self.files:
            if file.startswith(("/", "-")) or ".." in Path(file).parts or not re.fullmatch(r"[\w./-]+", file):
                yield f"files: {file!r} is not the name of a file inside the repository"
            pickled = file.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))
            if file.endswith(".py"):
                yield f"files: {file!r} is a program; coldprefix runs no code of a model"
            if pickled and file != self.convert_pickle:
                yield f"files: {file!r} is a pickle, which can run code; name the .safetensors file instead"
        for file, sha256 in self.files.items():
            if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
                yield f"files.{file}: {sha256!r} is not a sha256 (64 hex digits); write null if it is not known"
        if self.convert_pickle and self.convert_pickle not in self.files:
            yield f"convert_pickle: {self.convert_pickle!r} is not among files"
        yield from self._gguf_problems(self.gguf) if self.gguf else self._safetensors_problems()

    def _safetensors_problems(self) -> Iterator[str]:
        if not self.convert_pickle and not any(file.endswith(".safetensors") for file in self.files):
            yield "files: no .safetensors file among them; weights are read from safetensors or GGUF only"
        if "config.json" not in self.files:
            yield "files: config.json is missing; every engine needs it"

    def _gguf_problems(self, first: str) -> Iterator[str]:
        if self.convert_pickle or any(file.endswith(".safetensors") for file in self.files):
            yield "files: a GGUF file beside other weights; write an entry for each"
        try:
            wanted = {str(Path(first).with_name(part)) for part in parts_of(Path(first).name)}
        except ColdprefixError as error:
            yield f"files: {error}"
            return
        if wanted != (found := {file for file in self.files if file.endswith(".gguf")}):
            other = ", ".join(sorted(wanted ^ found))
            yield f"files: a model is one GGUF file, or all parts of one that is split; of {first} it is not: {other}"

    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        say(f"model {name}: {self.repository} at {self.revision[:12]}")
        recorded = {file: entry["sha256"] for file, entry in earlier.get("files", {}).items()} | earlier.get("pickles", {})
        found = download(name, self, folder, recorded)
        for file in (f for f, expected in self.files.items() if expected is None and f not in recorded):
            say(f"model {name}: no checksum in config.yaml for {file}; this download's is {found[file]}, recorded")
        if not self.convert_pickle:
            return {}
        unpickle(name, folder / self.convert_pickle, folder / "model.safetensors")
        return {self.convert_pickle: found[self.convert_pickle]}


def download(name: str, model: Repository, folder: Path, recorded: dict[str, str]) -> dict[str, str]:
    """Put the files of a Hub repository into the existing ``folder``.

    Args:
        name: the model's key in config.yaml, for messages.
        recorded: sha256 of earlier downloads of this model, by file name; for files whose checksum config.yaml does not know.

    Returns:
        sha256 by file name.

    Raises:
        ColdprefixError: no such repository, revision or file, no access, no network, a wrong checksum.
    """
    found = {}
    for file, expected in model.files.items():
        cached = Path(_fetch(name, model, file)).resolve()
        where = f"{file} of {model.repository} at {model.revision[:12]}"
        sha256 = sha256_of_file(cached)
        wanted = expected or recorded.get(file)
        source = f"config.yaml says {wanted} (models.{name}.files)" if expected else f"the first download had {wanted}"
        if sha256 != wanted and not _is_what_it_is_called(cached, sha256):
            cached.unlink()  # nobody can use it, and it must not be found again
            raise ColdprefixError(
                f"{where} has the sha256 {sha256}{f', {source}' if wanted else ''}, and is not what the Hub calls it ({cached.name}): it was "
                "damaged on its way, or in the cache, and was removed from there; run again to download it anew"
            )
        if wanted and sha256 != wanted:
            advice = "correct config.yaml" if expected else f"to accept it as it is now, delete results/setup/downloads/{name}.json"
            raise ColdprefixError(
                f"{where} has the sha256 {sha256}, {source}. Either that is wrong: {advice}. Or the file is: a pinned revision must not change; "
                f"to download it anew, delete {cached}, which your other tools use, too"
            )
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(cached, target)
        found[file] = sha256
    return found


def _is_what_it_is_called(blob: Path, sha256: str) -> bool:
    """The Hub calls a file in large file storage by its sha256, any other by git's sha1. What has another name says nothing of itself."""
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name == sha256
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        return blob.name == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return True


def _copy(source: Path, target: Path) -> None:
    """A file of its own, since the cache is the user's: who edits a model must not edit that. It takes no space where the file system can."""
    with open(source, "rb") as old, open(target, "wb") as new:
        try:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
            return
        except OSError:  # another file system, or one that cannot
            pass
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise ColdprefixError(no_space(target)) from None


def _fetch(name: str, model: Repository, file: str) -> str:
    """Path of one file in huggingface_hub's cache, downloaded if it is not there."""
    import httpx2
    from huggingface_hub import hf_hub_download

    where = f"{file} of {model.repository} at {model.revision[:12]} (models.{name})"
    resets = 0
    while True:
        try:
            return hf_hub_download(model.repository, file, revision=model.revision)
        except Exception as error:  # errors of httpx2 and of hf_xet, which has no class for them, arrive here as they are
            # huggingface_hub resumes after an orderly end and after silence, but gives up at a reset.
            if not isinstance(error, httpx2.ReadError) or resets == RESETS:
                raise ColdprefixError(f"cannot download {where}: {_explain(error)}{_only_pickles(file, error)}") from None
            resets += 1
            say(f"the connection was reset; downloading {where} again ({resets} of {RESETS})")


def _only_pickles(file: str, error: Exception) -> str:
    """What to add where safetensors are missing: many repositories hold pickles only."""
    from huggingface_hub import errors

    if not file.endswith(".safetensors") or not isinstance(error, errors.RemoteEntryNotFoundError):
        return ""
    return ". Weights that it offers as a pickle only (.bin, .pt) are read where convert_pickle names one, see docs/configuration.md"


def _explain(error: Exception) -> str:
    """What happened and what to do about it."""
    import httpx2
    from huggingface_hub import constants, errors

    # With nothing in its cache, huggingface_hub hides the reason behind a LocalEntryNotFoundError.
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    for kind, text in (
        (errors.GatedRepoError, "access must be granted: ask for it on its page, and set HF_TOKEN to a token of that account"),
        (errors.RepositoryNotFoundError, "there is no such repository, or it is private: check its name, or set HF_TOKEN"),
        (errors.RevisionNotFoundError, "the repository has no such revision; look up the commit on its page"),
        (errors.RemoteEntryNotFoundError, "the repository has no such file at this revision; look at its list of files"),
        (errors.OfflineModeIsEnabled, f"HF_HUB_OFFLINE is set and the file is not in {constants.HF_HUB_CACHE}; unset it. {NO_NETWORK}"),
        (UnicodeEncodeError, "HF_TOKEN holds a character that no token has; copy it again"),
        (errors.FileMetadataError, "what answered is not a Hub: check HF_ENDPOINT, the proxy, and whether this network wants a login"),
    ):
        if isinstance(error, kind):
            return text
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, errors.HfHubHTTPError):
        status, headers = error.response.status_code, error.response.headers
        advice = {
            401: "HF_TOKEN, or the token of `hf auth login`, is not valid; public models need none",
            403: "the token in HF_TOKEN lacks the permission, or a proxy forbids it",
            429: f"too many requests; wait {headers.get('Retry-After', '300')} s and run again. HF_TOKEN, if set, raises the limit",
        }.get(status, "wait and run again" if status >= 500 else "")
        said = f"{status} {headers.get('X-Error-Message') or error.response.reason_phrase}"
        return f"{_host(error.response)} answered {said}" + (f": {advice}" if advice else "")
    if isinstance(error, httpx2.TransportError):
        return f"no connection to {_host(error)}, or it broke ({said}): check network, HF_ENDPOINT and proxy, run again. {NO_NETWORK}"
    if isinstance(error, RuntimeError):  # hf_xet's
        return f"{said}; HF_HUB_DISABLE_XET=1 downloads without the Xet storage, which not every network and mirror lets through"
    if isinstance(error, OSError):
        return f"{said}; see that there is room in {constants.HF_HUB_CACHE}, or set HF_HOME to another folder, and run again"
    return f"{type(error).__name__}: {said}"


def _host(asked: httpx2.TransportError | httpx2.Response) -> str:
    """Name of the machine that was asked: the Hub, its CDN or a mirror. Of the URL no more, since it may hold a signature."""
    try:
        return asked.request.url.netloc.decode()
    except RuntimeError:  # the request was never made
        return "the Hub"
