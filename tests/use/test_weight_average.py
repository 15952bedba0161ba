"""Averaged weights against a plain mean of the tensors, and models that cannot be averaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bbam_ray import load_model
from bbam_ray.core.calibration import Calibration
from bbam_ray.core.ensembles import Standardization
from bbam_ray.engine.ensemble_folder import EnsembleMember, save_ensemble
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.trainer import Trainer
from bbam_ray.engine.weight_average import average_weights, save_average
from bbam_ray.errors import UsageError

Stored = tuple[Trainer, Path]


@pytest.fixture(scope="module")
def epochs(
    tiny_trainer: Callable[..., Trainer], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """One run of bbam at the ends of its last three epochs."""
    trainer, folder = tiny_trainer(epochs=5), tmp_path_factory.mktemp("epochs")
    folders = []
    while not trainer.finished:
        trainer.run_epoch()
        if trainer.epoch > 2:
            folders.append(folder / str(trainer.epoch))
            save_model(folders[-1], trainer, [0.0] * 10)
    return folders


def test_every_tensor_is_the_mean(epochs: list[Path]) -> None:
    state = average_weights(epochs)
    stored = [load_file(folder / "model.safetensors") for folder in epochs]
    for part, prefix in ((state.network, "network."), (state.method, "method.")):
        assert part
        for name, tensor in part.items():
            tensors = [each[prefix + name] for each in stored]
            if tensor.is_floating_point():
                expected = sum(t.double() for t in tensors) / len(tensors)
                assert torch.allclose(tensor.double(), expected, rtol=1e-6, equal_nan=True)
            else:
                assert torch.equal(tensor, tensors[0])
    assert len(state.network) + len(state.method) == len(stored[0])


def test_one_model_is_its_own_average(
    epochs: list[Path], scenes: np.ndarray, tmp_path: Path
) -> None:
    save_average(tmp_path / "m", epochs[:1], [0.5] * 10)
    one, other = load_model(tmp_path / "m", "cpu"), load_model(epochs[0], "cpu")
    assert np.array_equal(one.logits(scenes), other.logits(scenes))
    assert one.thresholds.tolist() == [0.5] * 10 and one.networks == 1


def test_an_average_is_a_model_with_calibration(
    epochs: list[Path], scenes: np.ndarray, tmp_path: Path
) -> None:
    calibration = Calibration(torch.full((10,), 2.0).double(), torch.zeros(10).double())
    save_average(tmp_path / "m", epochs, [0.0] * 10, calibration)
    model = load_model(tmp_path / "m", "cpu")
    logits = model.logits(scenes)
    assert np.allclose(model.predict_proba(scenes), 1 / (1 + np.exp(-2.0 * logits)), atol=1e-6)
    assert not np.allclose(logits, load_model(epochs[0], "cpu").logits(scenes), atol=1e-4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "supervised"}, "'method' is not the same"),
        ({"scale": 7.0}, "'scale' is not the same"),
        ({"feature_dim": 12}, "'feature_dim' is not the same"),
    ],
)
def test_models_that_differ_are_refused(
    values: dict[str, object],
    words: str,
    epochs: list[Path],
    tiny_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:
    trainer = tiny_trainer(**values)
    trainer.run_epoch()
    save_model(tmp_path / "other", trainer, [0.0] * 10)
    with pytest.raises(UsageError, match=words):
        average_weights([epochs[0], tmp_path / "other"])
    with pytest.raises(UsageError, match=words):
        save_average(tmp_path / "m", [epochs[0], tmp_path / "other"], [0.0] * 10)
    assert not (tmp_path / "m").exists()


def test_models_of_other_samples_are_refused(epochs: list[Path], features_model: Stored) -> None:
    with pytest.raises(UsageError, match="is not the same as in"):
        average_weights([epochs[0], features_model[1]])


def test_an_ensemble_and_nothing_cannot_be_averaged(epochs: list[Path], tmp_path: Path) -> None:
    moments = Standardization(torch.zeros(10), torch.ones(10))
    save_ensemble(tmp_path / "e", [EnsembleMember(epochs[0], 1, moments)], [0.0] * 10)
    with pytest.raises(UsageError, match="is an ensemble"):
        average_weights([tmp_path / "e"])
    with pytest.raises(UsageError, match="at least one model"):
        average_weights([])
    with pytest.raises(UsageError, match="9 thresholds for 10 labels"):
        save_average(tmp_path / "m", epochs, [0.0] * 9)
