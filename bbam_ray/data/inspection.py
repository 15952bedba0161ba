"""What is in a data set and what is wrong with it, found before a run does."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from bbam_ray.data.cache.folder import opened
from bbam_ray.data.cache.images import cache_file, cached_images
from bbam_ray.data.cache.row_file import DamagedRowsError, StoredRows
from bbam_ray.data.datasets.base import Dataset, Part, Samples
from bbam_ray.data.datasets.image_base import ImageDataset
from bbam_ray.data.formats.tokenizer import ABSENT
from bbam_ray.data.sampling.splits import Split

_PARTS: tuple[Part, Part] = ("train", "test")
_SHOWN = 20


@dataclass
class Inspection:
    """The contents of a data set.

    Args:
        counts: samples by part, and how many of the training part are labelled.
        label_names: K names.
        positives: (K,) positives by "train", "test" and, where a split was asked for, its parts.
        sizes: smallest, median and largest width and height of the encoded images.
        errors: what would break a run.
        warnings: what a user should know.
    """

    counts: dict[str, int] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    positives: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def inspect(dataset: Dataset, options: Any, data_dir: Path | None) -> Inspection:
    """Read all of a data set: every label, every image, every stored row.

    Raises:
        UsageError: the data set has not the form that it should have at all.
    """
    found = Inspection()
    if isinstance(dataset, ImageDataset):
        _inspect_images(dataset, options, data_dir, found)
        if found.errors:
            return found
    parts = {part: dataset.load(options, data_dir, part) for part in _PARTS}
    count_parts(found, parts)
    for part, samples in parts.items():
        _check_labels(part, samples, found)
    _check_published(dataset, found)
    _check_duplicates(parts, found)
    return found


def count_parts(found: Inspection, parts: Mapping[Part, Samples]) -> None:
    """Count the samples and the positives of each label."""
    for part, samples in parts.items():
        found.counts[part] = len(samples.labels)
        found.positives[part] = samples.labels.sum(axis=0, dtype=int).tolist()
    found.label_names = parts["train"].label_names
    is_labeled = parts["train"].is_labeled
    found.counts["known"] = int(
        len(parts["train"].labels) if is_labeled is None else is_labeled.sum()
    )


def add_split(found: Inspection, samples: Samples, split: Split) -> None:
    """Count the positives of each label in the parts of a split."""
    for name, rows in (("labeled", split.labeled), ("validation", split.validation)):
        found.counts[name] = len(rows)
        found.positives[name] = samples.labels[rows].sum(axis=0, dtype=int).tolist()
    found.counts["unlabeled"] = len(split.unlabeled)
    if absent := _absent(samples.label_names, found.positives["labeled"]):
        found.warnings.append(
            f"no positive among the labelled samples of this split for {_list(absent)}; raise "
            "--labeled-fraction or use --set split=stratified"
        )


def _inspect_images(
    dataset: ImageDataset, options: Any, data_dir: Path | None, found: Inspection
) -> None:
    """Open and decode every image, and read back what is stored."""
    widths: list[tuple[int, int]] = []
    for part, table in dataset.checked_tables(options, data_dir).items():
        images = table.images
        stored = opened(cache_file(dataset.name, images, options.image_size))
        if stored is not None:
            _verify(stored, found)
        unreadable = cached_images(dataset.name, images, options.image_size).metadata["unreadable"]
        for row, reason in unreadable[:_SHOWN]:
            text = f"{images.names[row]} ({part}) cannot be read: {reason}"
            (found.errors if options.unreadable == "error" else found.warnings).append(text)
        if len(unreadable) > _SHOWN:
            found.errors.append(f"{len(unreadable) - _SHOWN} more images cannot be read ({part})")
        bad = {row for row, _ in unreadable}
        for row, encoded in enumerate(images):
            if row not in bad:
                with Image.open(encoded) as image:
                    widths.append(image.size)
    if unused := dataset.unused(options, data_dir):
        found.warnings.append(
            f"{len(unused)} images are in no table and are not used, the first is {unused[0]}; move them "
            "into unlabeled/ to train on them"
        )
    if widths:
        ordered = sorted(widths, key=lambda size: size[0] * size[1])
        places = {"smallest": 0, "median": len(ordered) // 2, "largest": -1}
        found.sizes = {name: ordered[place] for name, place in places.items()}


def _verify(stored: StoredRows, found: Inspection) -> None:
    try:
        stored.verify()
    except DamagedRowsError as error:
        stored.path.unlink(missing_ok=True)
        found.warnings.append(f"{error}; decoded anew")


def _check_labels(part: Part, samples: Samples, found: Inspection) -> None:
    positives = found.positives[part]
    if not sum(positives):
        found.errors.append(f"the {part} part has no positive label at all")
    elif absent := _absent(samples.label_names, positives):
        what = "cannot be learned" if part == "train" else "has no average precision"
        found.warnings.append(f"no positive in the {part} part for {_list(absent)}: {what}")


def _check_published(dataset: Dataset, found: Inspection) -> None:
    for part, count in dataset.published_counts.items():
        if found.counts[part] != count:
            found.warnings.append(
                f"{found.counts[part]} {part} images, where {count} were published: figures are not "
                "comparable with published ones"
            )


def _check_duplicates(parts: dict[Part, Samples], found: Inspection) -> None:
    """Samples with the very same content, which make figures look better than they are."""
    digests = {part: _digests(samples) for part, samples in parts.items()}
    for part, keys in digests.items():
        if double := sum(count - 1 for count in Counter(keys).values() if count > 1):
            found.warnings.append(f"{double} samples of the {part} part are copies of others in it")
    places = {key: row for row, key in enumerate(digests["train"])}
    both = [(places[key], row) for row, key in enumerate(digests["test"]) if key in places]
    if both:
        first = " and ".join(
            _name(parts[part], row) for part, row in zip(_PARTS, both[0], strict=True)
        )
        found.warnings.append(
            f"{len(both)} test samples are in the training part as well, the first are {first}; remove "
            "them from one of the two"
        )


def _digests(samples: Samples) -> list[bytes]:
    found = []
    for start in range(0, len(samples.inputs), 256):
        block = samples.inputs[start : start + 256]
        for row in block:
            content = row[row != ABSENT] if samples.views.vocabulary else row
            found.append(hashlib.blake2b(content.tobytes(), digest_size=16).digest())
    return found


def _name(samples: Samples, row: int) -> str:
    return samples.names[row] if samples.names else f"row {row + 1}"


def _absent(names: tuple[str, ...], positives: list[int]) -> list[str]:
    return [name for name, count in zip(names, positives, strict=True) if not count]


def _list(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
