"""Weights on the Hugging Face Hub, by ``huggingface_hub``: a repository holds a weight file and its model card."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError

PREFIX = "hf://"
WEIGHTS, CARD = "model.safetensors", "README.md"


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is ``hf://user/model`` or, of one revision, ``hf://user/model@revision``."""
    return str(path).startswith(PREFIX)


def downloaded(address: str) -> Path:
    """The weight file of a repository, from the Hub's cache on this machine or the Hub.

    Raises ``DataError`` naming the address and why there is no file; ``ModuleNotFoundError`` without huggingface_hub.
    """
    from huggingface_hub import hf_hub_download

    repository, _, revision = address.removeprefix(PREFIX).partition("@")
    with _explained(address):
        _check(repository)
        return Path(hf_hub_download(repository, WEIGHTS, revision=revision or None))


def uploaded(weights: Path, card: str, repository: str, *, private: bool = False, replace_card: bool = False) -> str:
    """Puts a weight file and its card into ``repository`` (``user/model``), made if it is not there, as one commit.

    A card that is there stays, unless ``replace_card``; earlier weights stay in its history. Returns the commit's
    address. Raises as ``downloaded``.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with _explained(repository):
        _check(repository)
        api.create_repo(repository, private=private, exist_ok=True)
        files = [CommitOperationAdd(WEIGHTS, str(weights))]
        if replace_card or not api.file_exists(repository, CARD):
            files.append(CommitOperationAdd(CARD, card.encode()))
        return str(api.create_commit(repository, files, commit_message="Weights from fcn push").commit_url)


def _check(repository: str) -> None:
    user, _, model = repository.partition("/")
    if not user or not model or "/" in model:
        raise ValueError(f"a repository is user/model, got {repository!r}")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors of ``huggingface_hub``, which are long, as one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RepositoryNotFoundError:
        why = "there is no such repository on the Hub, or no access to it ('hf auth login' gives a token)"
    except errors.LocalEntryNotFoundError:
        why = "the Hub cannot be reached, and the file is not in its cache on this machine"
    except errors.EntryNotFoundError:
        why = f"the repository has no {WEIGHTS}"
    except errors.RevisionNotFoundError:
        why = "the repository has no such revision"
    except Exception as error:  # no token, no network, no right to write: of several libraries, without a common type
        why = " ".join(str(error).split())
    else:
        return
    raise DataError(f"{what}: {why}")
