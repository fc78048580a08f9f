"""A model's name -> the folder that has it: a local path, or an id of the Hugging Face hub.

The hub's own client downloads (progress bar, resume, cache, HF_* variables); nothing here knows
the network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.config import Config
from penstock.errors import CheckpointError, ConfigError

DEMO = Path(__file__).parent.parent / "demo" / "model"

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
UNWANTED = ("*/*", "consolidated*")
"""other formats of the same weights, in folders of their own or under the author's own names"""

Download = Callable[..., Any]
"""has the keyword arguments of `huggingface_hub.snapshot_download`; returns the folder"""


def model_folder(config: Config) -> Path:
    """Where the checkpoint lies (downloaded if it is a hub id). Raises CheckpointError."""
    if config.model.model == "demo":
        return DEMO
    return resolve_model(config.model.model, config.model.revision, config.model.download_dir)


def resolve_model(
    name_or_path: str,
    revision: str | None = None,
    download_dir: str | None = None,
    download: Download | None = None,
) -> Path:
    """The checkpoint folder of a local path or a hub id ("owner/name"), downloaded if need be.

    revision: branch, tag or commit of a hub id. download_dir: the cache to use in place of the
    hub client's own. Raises CheckpointError with the cure; ConfigError for a local folder with a
    revision.
    """
    local = Path(name_or_path).expanduser()
    if local.is_dir():
        if revision is not None:
            raise ConfigError(
                f"{local} is a local folder, which has no revision {revision!r}.",
                cure="Leave the revision out, or name a hub id.",
                param="revision",
            )
        return local
    if not _is_hub_id(name_or_path):
        raise CheckpointError(
            f"There is no folder {name_or_path!r}.",
            cure="Name an existing checkpoint folder, or a hub id such as owner/name.",
        )
    try:
        folder = (download or _snapshot_download())(
            repo_id=name_or_path,
            revision=revision,
            cache_dir=download_dir,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    except Exception as error:  # whatever the client raises, there is no model
        raise _explained(error, name_or_path, revision) from error
    return Path(folder)


def _snapshot_download() -> Download:
    from huggingface_hub import snapshot_download  # slow to import, and needed for hub ids alone

    return snapshot_download


def _is_hub_id(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and not name.endswith("/")


def _explained(error: Exception, name: str, revision: str | None) -> CheckpointError:
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision else ""
    cause = f"{name}{at} could not be had from the hub: "
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            cause + "access to it must be granted.",
            cure="Accept its terms on its page, then log in with `hf auth login`.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(cause + "no such revision.", cure="Check the revision.")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return CheckpointError(
            cause + "no such model, neither as a local folder nor on the hub.",
            cure="Check the spelling; for a private model log in with `hf auth login`.",
        )
    first_line = str(error).strip().partition("\n")[0]
    return CheckpointError(
        f"{cause}{type(error).__name__}: {first_line}",
        cure="Check the network and the disk and start again (the download resumes), or name a "
        "local folder.",
    )
