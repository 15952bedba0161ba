"""What a data set is to the rest of the project, and where generated files are kept."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from bbam_ray.config import DatasetOptions
from bbam_ray.errors import UsageError

Part = Literal["train", "test"]


@dataclass(frozen=True)
class ViewSettings:
    """How stored samples become network inputs.

    Args:
        mean, std: per channel, for inputs scaled to [0, 1].
        flip: whether a mirrored sample keeps its labels.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    flip: bool = False


@dataclass(frozen=True)
class Samples:
    """One part of a data set.

    Args:
        inputs: (N, C, H, W) uint8 images or (N, F) float32 features; may be memory-mapped.
        labels: (N, K) uint8 in {0, 1}.
        label_names: K names.
    """

    inputs: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]

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

    @abstractmethod
    def check(self, options: Any, data_dir: Path | None) -> None:
        """Raise a UsageError that says what is missing and how to get it."""

    @abstractmethod
    def state(self, options: Any, data_dir: Path | None) -> str:
        """A text that changes when the samples or labels of any part do."""

    @abstractmethod
    def load(self, options: Any, data_dir: Path | None, part: Part) -> Samples:
        """Read one part; the data set has passed ``check``."""


def cache_dir() -> Path:
    """Folder of generated and decoded data: BBAM_RAY_CACHE, else the user's cache folder."""
    chosen = os.environ.get("BBAM_RAY_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "bbam_ray"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name; it appears under its own name complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; set BBAM_RAY_CACHE to a folder with space"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
