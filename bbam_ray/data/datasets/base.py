"""The interface of a data set.

There is no torch ``Dataset`` or ``DataLoader``: the order of samples is a function of (seed, epoch) for
any number of workers, so training reads rows by position (``inputs[rows]`` of an array or a file on disk).
Augmentation runs in batches on the training device, which leaves nothing for loader processes to do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.row_file import StoredRows
from bbam_ray.data.formats.labels.result import Reading
from bbam_ray.data.sampling.composition import IMAGE_SHARES, Shares

if TYPE_CHECKING:
    from bbam_ray.data.download.sources import Publication

Part = Literal["train", "test"]
Inputs = np.ndarray | StoredRows


@dataclass(frozen=True)
class ViewSettings:
    """How stored samples become network inputs.

    Args:
        mean, std: per channel of images scaled to [0, 1], or per feature; a single value serves all.
        flip: whether a mirrored image keeps its labels.
        strong_view: of images, "affine" or "uda"; see the setting of this name.
        flip_when_scoring: whether the refresh mirrors images at random.
        vocabulary: number of different tokens of texts; 0 = the samples are not texts.
        tokenizer: JSON of the tokenizer that the texts were encoded with.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    flip: bool = False
    strong_view: str = "affine"
    flip_when_scoring: bool = False
    vocabulary: int = 0
    tokenizer: str = ""

    def features(self, input_shape: tuple[int, ...]) -> int | None:
        """F, if samples of this shape are feature vectors; None for images and texts."""
        return input_shape[0] if len(input_shape) == 1 and not self.vocabulary else None


@dataclass(frozen=True)
class Samples:
    """One part of a data set.

    Args:
        inputs: (N, C, H, W) uint8 images, (N, F) float32 features or (N, L) int32 tokens; may be on disk.
        labels: (N, K) uint8 in {0, 1}.
        label_names: K names.
        views: how inputs become network inputs; those of the training part serve every part.
        is_labeled: (N,) bool, False for unlabelled samples; their rows of ``labels`` are zero and carry
            no information. None = all samples are labelled. Test samples always are.
        names: N names (files), where samples have one.
        is_validation: (N,) bool, labelled samples of a validation part that the data name; None if they
            name none. It is None in the test part.
        reading: how the label files were understood; None if there is only one way.
        notes: sentences for the user about what was ignored, or read in a way that is not obvious.
    """

    inputs: Inputs
    labels: np.ndarray
    label_names: tuple[str, ...]
    views: ViewSettings = ViewSettings()
    is_labeled: np.ndarray | None = None
    names: Sequence[str] | None = None
    is_validation: np.ndarray | None = None
    reading: Reading | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels) or self.labels.shape[1] != len(self.label_names):
            raise ValueError(
                f"{len(self.inputs)} inputs, labels {self.labels.shape} and "
                f"{len(self.label_names)} label names do not fit together"
            )
        if len(set(self.label_names)) < len(self.label_names):
            raise ValueError(f"label names are not unique: {', '.join(self.label_names)}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])


class Dataset(ABC):
    """A data set by name. It keeps no state; training loads the training part and never the test part.

    A new data set implements ``state`` and ``load``.
    """

    name: ClassVar[str]
    #: settings of this data set alone
    Options: ClassVar[type[DatasetOptions]] = DatasetOptions
    #: default of ``Samples.views``
    views: ClassVar[ViewSettings] = ViewSettings()
    #: values of common settings that suit this data set better than the general defaults
    defaults: ClassVar[Mapping[str, Any]] = {}
    #: share of labelled samples in a batch by ``labeled_fraction``, for batch_composition ``fraction``
    labeled_shares: ClassVar[Shares] = IMAGE_SHARES
    #: where ``bbam-ray data download`` gets the data set; None = it cannot be downloaded
    publication: ClassVar[Publication | None] = None
    #: samples of each part as published; ``bbam-ray data check`` reports a difference
    published_counts: ClassVar[Mapping[Part, int]] = {}

    def complete(self, values: dict[str, Any]) -> dict[str, Any]:
        """Add settings of this data set that follow from other settings; they are checked afterwards.

        Args:
            values: setting name to value: the user's, and the defaults of this data set.
        """
        return values

    @abstractmethod
    def state(self, options: Any, data_dir: Path | None) -> str:
        """A text that changes when the samples or labels of any part change.

        Called for the fingerprint of a run, by which the results of identical trials are reused.

        Raises:
            UsageError: files are missing, and how to get them.
        """

    @abstractmethod
    def load(self, options: Any, data_dir: Path | None, part: Part) -> Samples:
        """Read one part.

        Called by the command before anything starts, and by each training process; the first call may
        fill the cache, later ones should be fast.

        Raises:
            UsageError: what is missing or wrong in the data, and what to do about it.
        """

    def check(self, options: Any, data_dir: Path | None) -> None:
        """Check that the files of all parts are there, without reading samples.

        For callers in Python; commands use ``load``, which reports the same errors.
        """
        self.state(options, data_dir)
