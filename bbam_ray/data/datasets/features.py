"""``features``: your own feature vectors, in one of three forms.

- ``.npz``: arrays ``features`` (N, F) and ``labels`` (N, K); optionally ``label_names``,
  ``test_features`` and ``test_labels``, ``unlabeled_features``;
- Parquet: one file, or ``train*.parquet``, ``test*.parquet``, ``unlabeled*.parquet`` in a folder, with a
  column ``features`` (lists of equal length) and labels as in tables of images (``bbam-ray data extract``
  writes such a file);
- a Mulan folder: ``NAME-train.arff``, ``NAME-test.arff``, ``NAME.xml``; or one of MEKA, without XML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.row_file import StoredRows
from bbam_ray.data.datasets.base import Dataset, Part, Samples, ViewSettings
from bbam_ray.data.datasets.cached_parts import Targets, cached_parts, samples_of, write_part
from bbam_ray.data.formats.feature_files import (
    Vectors,
    feature_files,
    features_state,
    read_features,
)
from bbam_ray.data.formats.labels.options import LabelOptions


class FeaturesOptions(LabelOptions):
    """Options of the data set ``features``."""

    standardize: bool = Field(
        True,
        description="Center and scale every feature with mean and standard deviation of the training "
        "part.",
    )


class Features(Dataset):
    """Feature vectors (N, F) float32."""

    name: ClassVar[str] = "features"
    Options: ClassVar[type[DatasetOptions]] = FeaturesOptions
    defaults: ClassVar[dict[str, Any]] = {
        "backbone": "mlp",
        "labeled_fraction": None,
        "validation_fraction": 0.3,
        "epochs": 30,
        "warmup_epochs": 12,
        "warmup_passes": 5,
        "warmup_learning_rate": 1e-3,
        "learning_rate": 1e-3,
        "ema_decay": 0.99,
        "hidden_dim": 256,
        "feature_dim": 128,
    }

    def state(self, options: FeaturesOptions, data_dir: Path | None) -> str:
        return features_state(feature_files(data_dir))

    def load(self, options: FeaturesOptions, data_dir: Path | None, part: Part) -> Samples:
        files = feature_files(data_dir)

        def write(targets: Targets) -> None:
            vectors = read_features(files, options)
            for name, target in targets.items():
                _store(vectors, target, test=name == "test")

        key = f"{options.model_dump_json(exclude={'standardize'})} {features_state(files)}"
        parts = cached_parts(self.name, key, StoredRows, write)
        train, views = parts["train"], ViewSettings()
        if options.standardize:
            views = ViewSettings(tuple(train.metadata["mean"]), tuple(train.metadata["std"]))
        return samples_of(parts[part], views)


def _store(vectors: Vectors, target: Path, *, test: bool) -> None:
    """Write one part: its rows, with mean and standard deviation as metadata."""
    chosen = np.flatnonzero(vectors.labels.test == test)
    rows = vectors.features[chosen]
    deviation = rows.std(axis=0, dtype=np.float64)
    scale: dict[str, Any] = {
        "mean": rows.mean(axis=0, dtype=np.float64).tolist(),
        # A constant feature becomes 0.
        "std": np.where(deviation > 0, deviation, 1).tolist(),
        "notes": vectors.notes,
    }
    write_part(target, rows, vectors.labels, vectors.names, chosen, scale)
