"""What a data set is to the rest of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.row_file import StoredRows

Part = Literal["train", "test"]
Inputs = np.ndarray | StoredRows


@dataclass(frozen=True)
class ViewSettings:
    """How stored samples become network inputs.

    Args:
        mean, std: per channel of images scaled to [0, 1], or per feature; a single one serves all.
        flip: whether a mirrored image keeps its labels.
        vocabulary: number of different tokens of texts; 0 = these are not texts.
        tokenizer: JSON of what made tokens of texts.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    flip: bool = False
    vocabulary: int = 0
    tokenizer: str = ""


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
    """

    inputs: Inputs
    labels: np.ndarray
    label_names: tuple[str, ...]
    views: ViewSettings = ViewSettings()
    is_labeled: np.ndarray | None = None
    names: Sequence[str] | None = None

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
    """A data set by name. Stateless: ``load`` reads one part, so training never opens the test part."""

    name: ClassVar[str]
    Options: ClassVar[type[DatasetOptions]] = DatasetOptions
    views: ClassVar[ViewSettings] = ViewSettings()
    #: values of common settings that suit this data set better than the general defaults
    defaults: ClassVar[Mapping[str, Any]] = {}

    def complete(self, values: dict[str, Any]) -> dict[str, Any]:
        """Add settings of this data set that follow from other settings; they are checked afterwards.

        Args:
            values: setting name to value: the user's, and the defaults of this data set.
        """
        return values

    @abstractmethod
    def check(self, options: Any, data_dir: Path | None) -> None:
        """Raise a UsageError that says what is missing and how to get it."""

    @abstractmethod
    def state(self, options: Any, data_dir: Path | None) -> str:
        """A text that changes when the samples or labels of any part do."""

    @abstractmethod
    def load(self, options: Any, data_dir: Path | None, part: Part) -> Samples:
        """Read one part; the data set has passed ``check``."""
