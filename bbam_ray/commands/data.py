"""Summaries, checks, caching, downloads and feature extraction of data sets.

``settings`` of the functions are flat, as ``--set`` takes them: ``data_dir``, ``seed``,
``labeled_fraction``, ``image_size`` and so on. ``bbam-ray settings --dataset NAME`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbam_ray.commands.label_reading import report_reading
from bbam_ray.commands.listener import SILENT, Listener, reports_decoding
from bbam_ray.config import RunConfig
from bbam_ray.data import DATASETS, Samples
from bbam_ray.data.cache import folder as cache_folder
from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.image_base import ImageDataset
from bbam_ray.data.download import sources
from bbam_ray.data.example_texts import write_example
from bbam_ray.data.inspection import Inspection, add_split, count_parts, inspect
from bbam_ray.engine.task import load_part, split_of
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config

Settings = Mapping[str, Any] | None


@dataclass(frozen=True)
class Summary:
    """The contents of a data set, and whether it has images that only ``check`` opens."""

    inspection: Inspection
    has_images: bool


@dataclass(frozen=True)
class Cached:
    """The cached samples of a data set: the folder, their number and their size in bytes."""

    folder: Path
    samples: int
    nbytes: int


def info(
    dataset: str = "digits", settings: Settings = None, *, listener: Listener = SILENT
) -> Summary:
    """Count the samples and labels of a data set, and how a run would split them.

    Raises:
        UsageError: unknown data set or setting, or missing data.
    """
    config = _config(dataset, settings)
    with reports_decoding(listener):
        parts = _load_parts(config)
    inspection = Inspection()
    count_parts(inspection, parts)
    add_split(inspection, parts["train"], split_of(parts["train"], config))
    return Summary(inspection, isinstance(DATASETS[dataset], ImageDataset))


def check(
    dataset: str = "digits", settings: Settings = None, *, listener: Listener = SILENT
) -> Inspection:
    """Read every label and image; ``errors`` of the result would make a run fail.

    Raises:
        UsageError: unknown data set or setting, or missing data.
    """
    config = _config(dataset, settings)
    with reports_decoding(listener):
        inspection = inspect(DATASETS[dataset], config.data, config.training.data_dir)
    if not inspection.errors:
        samples = load_part(config, "train")
        try:
            add_split(inspection, samples, split_of(samples, config))
        except UsageError as error:
            inspection.errors.append(str(error))
    return inspection


def cache(
    dataset: str = "digits", settings: Settings = None, *, listener: Listener = SILENT
) -> Cached:
    """Decode all images of a data set now, so that no run has to.

    Raises:
        UsageError: unknown data set or setting, or missing data.
    """
    config = _config(dataset, settings)
    with reports_decoding(listener):
        parts = _load_parts(config)
    report_reading(parts["train"], listener)
    return Cached(
        folder=cache_folder.cache_dir() / dataset,
        samples=sum(len(samples.labels) for samples in parts.values()),
        nbytes=sum(samples.inputs.nbytes for samples in parts.values()),
    )


def clear_cache(dataset: str = "digits", settings: Settings = None) -> Cached:
    """Delete the cached samples of a data set; the result has the freed bytes."""
    _config(dataset, settings)
    freed = cache_folder.forget(dataset)
    return Cached(folder=cache_folder.cache_dir(), samples=0, nbytes=freed)


def download(name: str, folder: Path | str = "data", *, listener: Listener = SILENT) -> Path:
    """Download a data set from its publisher and unpack it; a repeated call resumes.

    Args:
        name: "awa", "voc2012" or "coco2014".
        folder: for archives and data.
        listener: receives the publisher's page and terms, and the progress in bytes.

    Returns:
        What to give as ``--data-dir``.

    Raises:
        UsageError: unknown data set.
    """
    if publication := sources.publications().get(name):
        listener.message(publication.page)
        listener.message(publication.terms)
    return sources.download(name, Path(folder), listener.progress)


def example(output: Path | str, train: int = 1200, test: int = 600) -> Path:
    """Write synthetic posts about ten topics as a data set for ``--dataset text``; returns the folder.

    Args:
        output: new folder.
        train, test: number of texts in each part, at least 20.

    Raises:
        UsageError: too few texts, or a folder that cannot be written.
    """
    for flag, count in (("--train", train), ("--test", test)):
        if count < 20:
            raise UsageError(f"{flag} {count}: use at least 20 texts")
    write_example(Path(output), train, test)
    return Path(output)


def extract(
    output: Path | str,
    dataset: str = "images",
    settings: Settings = None,
    *,
    backbone: str = "resnet50",
    weights: str = "DEFAULT",
    listener: Listener = SILENT,
) -> int:
    """Write features of all images of a data set as a Parquet file for ``--dataset features``.

    Args:
        output: new ``.parquet`` file.
        backbone: any torchvision classification network.
        weights: "DEFAULT", another torchvision name, a file with a state dict, or "none".
        listener: receives the progress in images.

    Returns:
        Features per image.

    Raises:
        UsageError: unknown data set, setting, backbone or weights, or an output that exists.
    """
    from bbam_ray.engine.extraction import extract_features, feature_network  # loads torchvision

    output = Path(output)
    if output.exists():
        raise UsageError(f"--output {output}: exists already; give another name or remove it")
    if output.suffix != ".parquet":
        raise UsageError(f"--output {output}: expected a name that ends with .parquet")
    config = _config(dataset, settings)
    network = feature_network(backbone, weights)

    def progress(done: int, total: int) -> None:
        listener.progress(f"features by {backbone}", done, total)

    with reports_decoding(listener):
        report_reading(load_part(config, "train"), listener)
        return extract_features(config, network, output, progress)


def _config(dataset: str, settings: Settings) -> RunConfig:
    values = dict(settings or {})
    if values.get("data_dir") is not None:
        values["data_dir"] = str(Path(values["data_dir"]).absolute())
    return run_config({**values, "dataset": dataset}, "command line")


def _load_parts(config: RunConfig) -> dict[Part, Samples]:
    return {"train": load_part(config, "train"), "test": load_part(config, "test")}
