"""Downloads from the Hugging Face Hub: pinned revision, named files, sha256 of each; resumable.

huggingface_hub does the transfer. It respects HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and HF_TOKEN, resumes a broken download
and shares its cache with the user's other tools.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from coldprefix.config import HubModel
from coldprefix.errors import ColdprefixError


def sha256_of_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(name: str, model: HubModel, folder: Path, recorded: dict[str, str]) -> dict[str, str]:
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
        cached = Path(_fetch(name, model, file))
        sha256 = sha256_of_file(cached)
        if expected and sha256 != expected:
            cached.resolve().unlink()  # a bad file must not be found in the cache again
            raise ColdprefixError(
                f"{file} of {model.repository} at {model.revision[:12]} has the sha256 {sha256}, config.yaml says {expected} "
                f"(models.{name}.files). It was removed; run again to download it anew. If that does not help, the file is not what it was."
            )
        if not expected and recorded.get(file, sha256) != sha256:
            raise ColdprefixError(
                f"{file} of {model.repository} at {model.revision[:12]} has the sha256 {sha256}; the first download had {recorded[file]}. "
                f"A pinned revision must not change: find out why before you measure with it."
            )
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(cached.resolve(), target)
        except OSError:  # another file system
            shutil.copyfile(cached, target)
        found[file] = sha256
    return found


def _fetch(name: str, model: HubModel, file: str) -> str:
    """Path of one file in huggingface_hub's cache, downloaded if it is not there."""
    from huggingface_hub import errors, hf_hub_download

    where = f"{file} of {model.repository} at {model.revision[:12]} (models.{name})"
    try:
        return hf_hub_download(model.repository, file, revision=model.revision)
    except errors.GatedRepoError:
        reason = "access to this repository must be asked for on its page; then set HF_TOKEN to a token of that account"
    except errors.RevisionNotFoundError:
        reason = "the repository has no such revision; look up the commit on its page"
    except errors.RepositoryNotFoundError:
        reason = "there is no such repository, or it is private: check its name, or set HF_TOKEN"
    except errors.LocalEntryNotFoundError as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
        cause = (
            "HF_HUB_OFFLINE is set and the file is not in the cache"
            if offline
            else f"the Hub cannot be reached ({error.__cause__ or error})"
        )
        reason = f"{cause}; model: gpt2-standin needs no network"
    except errors.EntryNotFoundError:
        reason = "the repository has no such file at this revision"
    except errors.HfHubHTTPError as error:
        reason = f"the Hub answered {error.response.status_code}: {str(error).splitlines()[0]}"
    except OSError as error:
        reason = str(error)
    raise ColdprefixError(f"cannot download {where}: {reason}") from None
