"""Where published data sets come from, under which terms, and how they are fetched and unpacked.

Sizes and digests are those that several public projects have recorded for the same files. None that
could be trusted was found for AwA2-data.zip: the length that the server announces has to arrive, and the
checksum of every file inside is compared when it is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bbam_ray.data.download.http import RemoteFile, fetch
from bbam_ray.data.download.unpack import extract
from bbam_ray.errors import UsageError, nearest

Progress = Callable[[str, int, int], None]

# images.cocodataset.org has no certificate of its own; this is the same storage under Amazon's.
_COCO = "https://s3.amazonaws.com/images.cocodataset.org"


@dataclass(frozen=True)
class Publication:
    """A data set as its publisher offers it.

    Args:
        page: the publisher's page.
        terms: under which terms images and labels may be used, in one sentence.
        archives: each archive by the one entry that it holds at its top.
        unpack_to: where the archives are unpacked, below the download folder.
        data_dir: what to give as --data-dir, below the download folder.
        max_bytes: more than any of the archives unpacks to.
    """

    page: str
    terms: str
    archives: Mapping[str, RemoteFile]
    unpack_to: str
    data_dir: str
    max_bytes: int


DOWNLOADS: dict[str, Publication] = {
    "awa": Publication(
        page="https://cvml.ista.ac.at/AwA2/",
        terms="The images were chosen for licences that allow free use and redistribution; the licence "
        "of each image is in the folder licenses.",
        archives={
            # holds the tables of AwA2-base.zip as well
            "Animals_with_Attributes2": RemoteFile(
                url="https://cvml.ista.ac.at/AwA2/AwA2-data.zip",
                name="AwA2-data.zip",
                size=None,  # about 13.9 GB
            )
        },
        unpack_to=".",
        data_dir="Animals_with_Attributes2",
        max_bytes=20 * 10**9,
    ),
    "voc2012": Publication(
        page="https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/voc2012/",
        terms="The images come from Flickr, and its terms of use apply (www.flickr.com/help/terms).",
        archives={
            "VOCdevkit": RemoteFile(
                url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                name="VOCtrainval_11-May-2012.tar",
                size=1_999_639_040,
                sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                md5="6cd6e144f989b92b3379bac3b3de84fd",
            )
        },
        unpack_to=".",
        data_dir="VOCdevkit/VOC2012",
        max_bytes=3 * 10**9,
    ),
    "coco2014": Publication(
        page="https://cocodataset.org/#download",
        terms="The annotations are licensed under Creative Commons Attribution 4.0 by the COCO "
        "Consortium, which does not own the images: Flickr's terms of use apply to those "
        "(cocodataset.org/#termsofuse).",
        archives={
            "annotations": RemoteFile(
                url=f"{_COCO}/annotations/annotations_trainval2014.zip",
                name="annotations_trainval2014.zip",
                size=252_872_794,
                sha256="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            ),
            "val2014": RemoteFile(
                url=f"{_COCO}/zips/val2014.zip",
                name="val2014.zip",
                size=6_645_013_297,
                sha256="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            ),
            "train2014": RemoteFile(
                url=f"{_COCO}/zips/train2014.zip",
                name="train2014.zip",
                size=13_510_573_713,
                sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            ),
        },
        unpack_to="coco2014",
        data_dir="coco2014",
        max_bytes=20 * 10**9,
    ),
}


def download(name: str, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch and unpack a data set into a folder; returns what to give as --data-dir.

    Call it again after any failure: what is complete is kept. The archives stay in the folder, and may
    be removed once they are unpacked.

    Args:
        progress: called with what is being done, bytes done and bytes in all.
    """
    publication = DOWNLOADS.get(name)
    if publication is None:
        raise UsageError(f"no data set '{name}' to download; {nearest(name, DOWNLOADS)}")
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
