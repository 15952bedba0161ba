"""Find pretrained networks on this machine."""

from __future__ import annotations

from pathlib import Path

from bbam_ray.errors import UsageError
from bbam_ray.optional import needed


def hub_folder(name: str, setting: str, extra: str = "text") -> Path:
    """Find the folder of a pretrained network: a folder of this machine, or one in the hub's local cache.

    Nothing is downloaded: a worker without a network would fail, others would download silently.

    Args:
        name: folder, or name on the Hugging Face hub.
        setting: that holds the name, for the message.
        extra: of this project, which installs the library that reads the cache.

    Raises:
        UsageError: neither exists.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    library = needed("huggingface_hub", extra, f"{setting} = '{name}'")
    try:
        return Path(library.snapshot_download(name, local_files_only=True))
    except Exception as error:  # the hub's own classes for a bad name and for a missing one
        raise UsageError(
            f"{setting} = '{name}': neither a folder nor in the hub's local cache "
            f"({type(error).__name__}); download it with 'hf download {name}', or give its folder"
        ) from None
