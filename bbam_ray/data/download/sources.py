"""A data set as its publisher offers it, and how it is fetched and unpacked.

Each data set describes its own publication (``Dataset.publication``), with the sizes and digests that
several public projects have recorded for the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bbam_ray.data import DATASETS
from bbam_ray.data.download.http import RemoteFile, fetch
from bbam_ray.data.download.unpack import extract
from bbam_ray.errors import UsageError, nearest

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Publication:
    """A data set as its publisher offers it.

    Args:
        page: the publisher's page.
        terms: under which terms images and labels may be used, in one sentence.
        archives: each archive by the only entry at its top level.
        unpack_to: where the archives are unpacked, below the download folder.
        data_dir: what to give as --data-dir, below the download folder.
        max_bytes: limit for the unpacked size of an archive.
    """

    page: str
    terms: str
    archives: Mapping[str, RemoteFile]
    unpack_to: str
    data_dir: str
    max_bytes: int


def publications() -> dict[str, Publication]:
    """The data sets that can be downloaded, by name."""
    offers = {name: dataset.publication for name, dataset in DATASETS.items()}
    return {name: offer for name, offer in offers.items() if offer is not None}


def download(name: str, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch and unpack a data set into a folder.

    Call it again after any failure: complete files are kept. The archives stay in the folder; they may be
    removed once they are unpacked.

    Args:
        name: of the data set.
        folder: where archives and data go.
        progress: called with the current action, bytes done and bytes in total.

    Returns:
        The value for --data-dir.
    """
    offers = publications()
    if (publication := offers.get(name)) is None:
        raise UsageError(f"data set '{name}' cannot be downloaded; {nearest(name, offers)}")
    target = folder / publication.unpack_to
    for entry, file in publication.archives.items():
        receipt = target / f".{file.name}.unpacked"
        if receipt.exists() and (target / entry).exists():
            continue
        fetching = progress and partial(progress, f"download {file.name}")
        archive = fetch(file, folder, fetching)
        unpacking = progress and partial(progress, f"unpack {file.name}")
        extract(archive, target, max_bytes=publication.max_bytes, progress=unpacking)
        receipt.touch()
    return folder / publication.data_dir
