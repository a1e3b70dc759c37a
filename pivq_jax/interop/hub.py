"""Download from and upload to the Hugging Face hub, for which huggingface_hub must be installed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError, brief


def is_hub_id(name: str) -> bool:
    """Returns whether a name has the form 'owner/name'."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def check_upload(name: str) -> None:
    """Checks, before work starts, that an upload to the hub id 'owner/name' is possible."""
    if not is_hub_id(name):
        raise InputError(f"{name} is no hub id: give one such as owner/name")
    _library(f"uploading to {name}")


def download(name: str, files: Sequence[str]) -> Path:
    """Downloads files of a model, of which some may not exist, or finds them in the hub's cache."""
    hub = _library(f"{name} is not a directory here, and fetching it from the hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(files)))
    # Raised if there is no network or no such model, or if the id is invalid.
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} is not a directory here and could not be fetched from the hub"
            f" ({brief(error)}): check the id and the network, or give a directory"
        ) from error


def upload(directory: Path, name: str, files: Sequence[str]) -> str:
    """Uploads files in one commit, whose address is returned; a new model is created on the hub.

    Call `check_upload` before.
    """
    hub = _library(f"uploading to {name}")
    try:
        hub.create_repo(name, exist_ok=True)
        patterns = list(files)
        commit = hub.upload_folder(repo_id=name, folder_path=directory, allow_patterns=patterns)
    # Raised if there is no network or no token, or if the hub refuses the id or the token.
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} could not be uploaded to {name} ({brief(error)}): check the id, the"
            " network and `hf auth login`"
        ) from error
    return str(commit)


def _library(task: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"{task} needs huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub
