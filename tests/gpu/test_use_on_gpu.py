"""Models trained on a GPU: stored, loaded on either device, used for predictions, and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bbam_ray.commands.export import export
from bbam_ray.commands.predict import predict
from bbam_ray.engine.model import load_model
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.trainer import Trainer

pytestmark = pytest.mark.gpu

ROUNDING = 0.1  # of scores, cosines x 20, where a GPU uses TensorFloat32
Stored = tuple[Trainer, Path]


@pytest.fixture(scope="module")
def stored(
    on_device: Callable[..., Trainer],
    run_to_end: Callable,
    tmp_path_factory: pytest.TempPathFactory,
) -> Stored:
    """A trained bbam and its folder."""
    trainer = on_device(epochs=6, negative_keep=0.9, amp=False, evaluation_batch=32)
    run_to_end(trainer)
    folder = tmp_path_factory.mktemp("gpu") / "model"
    save_model(folder, trainer, [0.5 * k - 2 for k in range(10)])
    return trainer, folder


@pytest.fixture
def scenes(stored: Stored, tmp_path: Path) -> tuple[np.ndarray, Path]:
    """Samples, also as a file."""
    samples = np.asarray(stored[0].data.inputs)[:70]
    np.savez(tmp_path / "x.npz", images=samples)
    return samples, tmp_path / "x.npz"


def test_a_loaded_model_scores_as_in_training(
    stored: Stored, scenes: tuple[np.ndarray, Path], device: torch.device
) -> None:
    trainer, folder = stored
    expected = trainer.score(trainer.data.inputs, np.arange(70)).cpu().numpy()
    for place in (device.type, "cpu"):
        model = load_model(folder, device=place)
        assert model.device.type == place
        tolerance = 2e-3 if place == device.type else ROUNDING
        assert np.abs(model.logits(scenes[0]) - expected).max() < tolerance
        decided = np.abs(expected - model.thresholds) > ROUNDING
        assert np.array_equal(
            model.predict(scenes[0])[decided] == 1, (expected > model.thresholds)[decided]
        )


def test_predict_writes_the_scores_of_the_model(
    stored: Stored, scenes: tuple[np.ndarray, Path], tmp_path: Path, device: torch.device
) -> None:
    gpus = 1 if device.type == "cuda" else 0
    done = predict(stored[1], scenes[1], tmp_path / "o.parquet", logits=True, gpus_per_worker=gpus)
    assert (done.rows, done.unreadable) == (70, 0)
    table = pq.read_table(tmp_path / "o.parquet").to_pandas()
    model = load_model(stored[1], device="cpu")
    found = table.filter(like="score_").to_numpy()
    assert np.abs(found - model.logits(scenes[0])).max() < ROUNDING


def test_an_exported_model_needs_no_gpu(
    stored: Stored, scenes: tuple[np.ndarray, Path], tmp_path: Path
) -> None:
    done = export(
        stored[1], tmp_path / "out", formats=["torch.export"], inputs=scenes[1], license="CC0-1.0"
    )
    assert max(done.differences.values()) < 1e-3
    again = load_model(tmp_path / "out", device="cpu")
    assert (
        np.abs(again.logits(scenes[0]) - load_model(stored[1], "cpu").logits(scenes[0])).max()
        < 1e-5
    )


def test_a_model_is_exported_to_onnx(
    stored: Stored, scenes: tuple[np.ndarray, Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = export(stored[1], tmp_path / "out", formats=["onnx"], inputs=scenes[1])
    assert max(done.differences.values()) < 1e-3
