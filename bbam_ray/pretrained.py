"""Where pretrained encoders of texts are found, and the packages that they need."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from bbam_ray.errors import UsageError


def needed(package: str, what: str) -> Any:
    """A module of the extra ``text``; a UsageError that says how to get it, where it is not there."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(
            f"{what} needs the package {package}; pip install 'bbam-ray[text]'"
        ) from None


def hub_folder(name: str, what: str) -> Path:
    """A folder of a pretrained encoder: the one named, or that of the hub's local cache.

    Nothing is fetched: a worker without a network would fail, and one with it would fetch silently.

    Args:
        name: folder, or name on the Hugging Face hub.
        what: the setting that names it, for the message.

    Raises:
        UsageError: neither is there.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    library = needed("huggingface_hub", f"{what} = '{name}'")
    try:
        return Path(library.snapshot_download(name, local_files_only=True))
    except Exception as error:  # the hub's own classes for a bad name and for a missing one
        raise UsageError(
            f"{what} = '{name}': neither a folder nor in the hub's local cache "
            f"({type(error).__name__}); fetch it with 'hf download {name}', or give its folder"
        ) from None
