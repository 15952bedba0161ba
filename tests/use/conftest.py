"""Small trained models of images and of features, and samples for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config

Make = Callable[..., Trainer]
WIDTH = 400


@pytest.fixture(scope="session")
def digits_model(
    tiny_trainer: Make, run_to_end: Callable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trainer, Path]:
    """A trained bbam on digits, and its folder; its statistics balance some labels."""
    trainer = tiny_trainer(epochs=6, negative_keep=0.9, evaluation_batch=64)
    run_to_end(trainer)
    assert trainer.method.statistics.balanced_labels().any()
    folder = tmp_path_factory.mktemp("digits") / "model"
    save_model(folder, trainer, [0.5 * k - 2 for k in range(10)])
    return trainer, folder


@pytest.fixture(scope="session")
def features_model(
    run_to_end: Callable, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trainer, Path]:
    """A trained model on vectors of very different scales, and its folder."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, WIDTH)) * 10 ** rng.uniform(-2, 2, WIDTH) + 3
    labels = (rng.random((80, 3)) < 0.4).astype(np.uint8)
    np.savez(folder / "data.npz", features=features, labels=labels)
    values = {"dataset": "features", "data_dir": str(folder / "data.npz"), "method": "supervised"}
    values |= {
        "labeled_fraction": 0.5,
        "epochs": 2,
        "warmup_epochs": 1,
        "warmup_passes": 1,
        "hidden_dim": 16,
    }
    config = run_config({**values, "feature_dim": 8, "device": "cpu"}, "test")
    trainer = Trainer(config, *prepare_training(config))
    run_to_end(trainer)
    save_model(folder / "model", trainer, [0.0, 0.1, -0.1])
    return trainer, folder / "model"


@pytest.fixture(scope="session")
def scenes(digits_model: tuple[Trainer, Path]) -> np.ndarray:
    """(N, 1, 24, 24) uint8."""
    return np.asarray(digits_model[0].data.inputs)[:100]
