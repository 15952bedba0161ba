"""The contents of a data set and its problems, for ``bbam-ray data info`` and ``check``."""

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
from bbam_ray.errors import UsageError

_PARTS: tuple[Part, Part] = ("train", "test")
_SHOWN = 20


@dataclass
class Inspection:
    """The contents of a data set.

    Args:
        counts: samples by part, and "known", the labelled ones of the training part.
        label_names: K names.
        positives: (K,) positives by "train", "test" and, after ``add_split``, by its parts.
        sizes: smallest, median and largest width and height of the encoded images.
        errors: problems that would stop a run.
        warnings: problems that would not.
        understood: how the label files were understood, in one line; empty if there is only one way.
        first_rows: the labels of their first rows.
        notes: what was ignored, or read in a way that is not obvious (``Samples.notes``).
    """

    counts: dict[str, int] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    positives: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    understood: str = ""
    first_rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect(dataset: Dataset, options: Any, data_dir: Path | None) -> Inspection:
    """Read all of a data set: every label, every image, every cached row.

    Raises:
        UsageError: files are missing, or not in the expected form.
    """
    inspection = Inspection()
    if isinstance(dataset, ImageDataset):
        _inspect_images(dataset, options, data_dir, inspection)
        if inspection.errors:
            return inspection
    parts = {part: dataset.load(options, data_dir, part) for part in _PARTS}
    if (reading := parts["train"].reading) is not None and reading.unlabeled_test:
        raise UsageError(reading.unlabeled_test)
    count_parts(inspection, parts)
    for part, samples in parts.items():
        _check_labels(part, samples, inspection)
    _check_published(dataset, inspection)
    _check_duplicates(parts, inspection)
    return inspection


def count_parts(inspection: Inspection, parts: Mapping[Part, Samples]) -> None:
    """Count the samples and the positives of each label, and collect the notes of the parts."""
    for part, samples in parts.items():
        inspection.notes += [note for note in samples.notes if note not in inspection.notes]
        inspection.counts[part] = len(samples.labels)
        inspection.positives[part] = samples.labels.sum(axis=0, dtype=int).tolist()
    inspection.label_names = parts["train"].label_names
    if (reading := parts["train"].reading) is not None:
        inspection.understood, inspection.first_rows = reading.summary, list(reading.rows)
        inspection.warnings += reading.notes
    is_labeled = parts["train"].is_labeled
    inspection.counts["known"] = int(
        len(parts["train"].labels) if is_labeled is None else is_labeled.sum()
    )


def add_split(inspection: Inspection, samples: Samples, split: Split) -> None:
    """Count the positives of each label in the parts of a split."""
    for name, rows in (("labeled", split.labeled), ("validation", split.validation)):
        inspection.counts[name] = len(rows)
        inspection.positives[name] = samples.labels[rows].sum(axis=0, dtype=int).tolist()
    inspection.counts["unlabeled"] = len(split.unlabeled)
    if absent := _absent(samples.label_names, inspection.positives["labeled"]):
        inspection.warnings.append(
            f"no positive among the labelled samples of this split for {_list(absent)}; raise "
            "--labeled-fraction or use --set split=stratified"
        )


def _inspect_images(
    dataset: ImageDataset, options: Any, data_dir: Path | None, inspection: Inspection
) -> None:
    """Open and decode every image, and read all cached rows."""
    image_sizes: list[tuple[int, int]] = []
    for part, table in dataset.checked_tables(options, data_dir).items():
        images = table.images
        rules = (options.image_size, options.image_range)
        stored = opened(cache_file(dataset.name, images, *rules))
        if stored is not None:
            _verify(stored, inspection)
        unreadable = cached_images(dataset.name, images, *rules).metadata["unreadable"]
        for row, reason in unreadable[:_SHOWN]:
            text = f"{images.names[row]} ({part}) cannot be read: {reason}"
            (inspection.errors if options.unreadable == "error" else inspection.warnings).append(
                text
            )
        if len(unreadable) > _SHOWN:
            inspection.errors.append(
                f"{len(unreadable) - _SHOWN} more images cannot be read ({part})"
            )
        bad = {row for row, _ in unreadable}
        for row, encoded in enumerate(images):
            if row not in bad:
                with Image.open(encoded) as image:
                    image_sizes.append(image.size)
    if unused := dataset.unused(options, data_dir):
        inspection.warnings.append(
            f"{len(unused)} images are not in any table and not used, the first is {unused[0]}; "
            f"{dataset.unused_advice}"
        )
    if image_sizes:
        ordered = sorted(image_sizes, key=lambda size: size[0] * size[1])
        positions = {"smallest": 0, "median": len(ordered) // 2, "largest": -1}
        inspection.sizes = {name: ordered[position] for name, position in positions.items()}


def _verify(stored: StoredRows, inspection: Inspection) -> None:
    try:
        stored.verify()
    except DamagedRowsError as error:
        stored.path.unlink(missing_ok=True)
        inspection.warnings.append(f"{error}; the images were decoded again")


def _check_labels(part: Part, samples: Samples, inspection: Inspection) -> None:
    positives = inspection.positives[part]
    if not sum(positives):
        inspection.errors.append(f"the {part} part has no positive label; label some samples")
    elif absent := _absent(samples.label_names, positives):
        what = "cannot be learned" if part == "train" else "has no average precision"
        inspection.warnings.append(f"no positive in the {part} part for {_list(absent)}: {what}")


def _check_published(dataset: Dataset, inspection: Inspection) -> None:
    for part, count in dataset.published_counts.items():
        if inspection.counts[part] != count:
            inspection.warnings.append(
                f"{inspection.counts[part]} {part} samples, but {count} were published: metrics are not "
                "comparable with published ones"
            )


def _check_duplicates(parts: dict[Part, Samples], inspection: Inspection) -> None:
    """Warn about samples with identical content, which make metrics look better than they are."""
    digests = {part: _digests(samples) for part, samples in parts.items()}
    for part, keys in digests.items():
        if copies := sum(count - 1 for count in Counter(keys).values() if count > 1):
            inspection.warnings.append(
                f"{copies} samples of the {part} part are copies of others in it"
            )
    train_rows = {key: row for row, key in enumerate(digests["train"])}
    both = [(train_rows[key], row) for row, key in enumerate(digests["test"]) if key in train_rows]
    if both:
        first = " and ".join(
            _name(parts[part], row) for part, row in zip(_PARTS, both[0], strict=True)
        )
        inspection.warnings.append(
            f"{len(both)} test samples are also in the training part, the first are {first}; remove them "
            "from one of the two"
        )


def _digests(samples: Samples) -> list[bytes]:
    digests = []
    for start in range(0, len(samples.inputs), 256):
        block = samples.inputs[start : start + 256]
        for row in block:
            content = row[row != ABSENT] if samples.views.vocabulary else row
            digests.append(hashlib.blake2b(content.tobytes(), digest_size=16).digest())
    return digests


def _name(samples: Samples, row: int) -> str:
    return samples.names[row] if samples.names else f"row {row + 1}"


def _absent(names: tuple[str, ...], positives: list[int]) -> list[str]:
    return [name for name, count in zip(names, positives, strict=True) if not count]


def _list(names: list[str]) -> str:
    first = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return first + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
