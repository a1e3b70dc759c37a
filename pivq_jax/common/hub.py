"""Where published models are: in a local directory, in the package, or on the Hugging Face hub."""

import re
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import expanded

# The files of a published model; see `interop.pretrained`.
WEIGHTS, PARENTS, PRIOR = "model.safetensors", "parents.safetensors", "prior.safetensors"
CONFIG, CARD = "config.json", "README.md"
_ID = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name


def shipped_models() -> dict[str, Path]:
    """Returns the directories of the published models in the package, by name."""
    folder = Path(__file__).parents[1] / "pretrained"
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{WEIGHTS}"))}


def is_published(directory: Path) -> bool:
    """Whether a directory is a published model, and no run in which weights were kept."""
    return (directory / WEIGHTS).exists() and not (directory / "checkpoints").exists()


def check_published(directory: Path) -> None:
    """Refuses a directory that is no published model."""
    if not is_published(directory):
        if (directory / "checkpoints").exists():
            raise InputError(
                f"{directory} is a run, no published model: give it as --workdir, or to"
                " pivq_jax.load"
            )
        raise InputError(f"{directory} holds no {WEIGHTS}: give what save_pretrained wrote")


def find_pretrained(where: str | Path) -> Path:
    """Finds a published model as a directory, in the package or on the hub, in this order."""
    directory, name, shipped = expanded(where), str(where), shipped_models()
    if directory.is_dir():
        return directory
    if name in shipped:
        return shipped[name]
    if not _ID.fullmatch(name):
        raise InputError(
            f"{name} is no directory here, no model of the package ({', '.join(shipped)}) and no"
            " hub id such as owner/name: give one of these"
        )
    hub = _library(f"{name} is not a directory here, and fetching it from the hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=[WEIGHTS, PARENTS, PRIOR, CONFIG]))
    except Exception as error:  # the library raises several types, of its network library, too
        raise InputError(
            f"{name} is not a directory here and could not be fetched from the hub"
            f" ({brief(error)}): check the id and the network, or give a directory"
        ) from error


def check_upload(name: str) -> Any:
    """Checks, before work starts, that an upload to a hub id is possible; returns the library."""
    if not _ID.fullmatch(name):
        raise InputError(f"{name} is no hub id: give one such as owner/name")
    return _library(f"uploading to {name}")


def upload(directory: Path, name: str) -> str:
    """Uploads a published model in one commit, whose address is returned; see `check_upload`.

    Parents and a prior that are on the hub but not in the directory are deleted there.
    """
    hub = check_upload(name)
    try:
        hub.create_repo(name, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=name,
            folder_path=directory,
            allow_patterns=[WEIGHTS, PARENTS, PRIOR, CONFIG, CARD],
            delete_patterns=[PARENTS, PRIOR],  # of an earlier upload, unless they are here, too
        )
    except Exception as error:  # the library raises several types, of its network library, too
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
