"""Training from each kind of input on a GPU: the same samples and views as on a CPU, read ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.minibatches import EpochSteps
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config

pytestmark = pytest.mark.gpu

Make = Callable[..., Trainer]
KINDS = ["digits", "images", "published images", "features", "texts", "bert"]
PUBLISHED = {
    "strong_view": "uda",
    "normalize": False,
    "flip_when_scoring": True,
    "warmup_cutout": 0.0,
}
SMALL: dict[str, Any] = {"labeled_fraction": 0.5, "epochs": 2, "warmup_epochs": 1}
SMALL |= {"warmup_passes": 1, "hidden_dim": 16, "feature_dim": 8, "amp": False}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run on JPEGs of several sizes, on a ResNet with batch norm."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    (folder / "images").mkdir()
    labels = rng.random((48, 3)) < 0.5
    rows = ["file,a,b,c"]
    for row, marks in enumerate(labels.astype(int)):
        pixels = rng.integers(0, 256, (40 + row % 3, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{row}.jpg")
        rows.append(",".join([f"{row}.jpg", *map(str, marks)]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    values = {"dataset": "images", "data_dir": str(folder), "backbone": "resnet18"}
    return {**values, "weights": "none", "image_size": 32, "labeled_batch": 8}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("features") / "data.npz"
    vectors = rng.normal(size=(80, 30)) * 10 ** rng.uniform(-2, 2, 30) + 3
    np.savez(path, features=vectors, labels=(rng.random((80, 3)) < 0.4).astype(np.uint8))
    return {"dataset": "features", "data_dir": str(path)}


@pytest.fixture(scope="module")
def make(
    images: dict[str, Any],
    features: dict[str, Any],
    on_device: Make,
    request: pytest.FixtureRequest,
    device: torch.device,
) -> Make:
    """Returns a function that makes the trainer of a kind of input; by default on the device."""

    def trainer(kind: str, **changes: Any) -> Trainer:
        changes = {"device": device.type, **SMALL, **changes}
        if kind == "digits":
            return on_device(**changes)
        if kind in ("texts", "bert"):
            pytest.importorskip("tokenizers")
            if kind == "bert":
                pytest.importorskip("transformers")
                changes |= {
                    "backbone": "transformer",
                    "weights": str(request.getfixturevalue("tiny_bert")),
                }
            text_trainer: Make = request.getfixturevalue("text_trainer")
            return text_trainer(**changes)
        settings = features if kind == "features" else images
        if kind == "published images":
            changes |= PUBLISHED
        config = run_config({**settings, **changes}, "test")
        return make_trainer(config, *prepare_training(config))

    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains(kind: str, make: Make, run_to_end: Callable) -> None:
    trainer = make(kind)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    for record in run_to_end(trainer):
        assert np.isfinite(record.scalars["loss"]) and np.isfinite(record.scalars["val_map"])
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True)
    )


def steps(trainer: Trainer, *, ahead: bool) -> EpochSteps:
    return EpochSteps(
        trainer.config.training,
        trainer.data,
        trainer.views,
        trainer.labels,
        2,
        main_phase=True,
        ahead=ahead,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_are_read_ahead_are_those_of_a_cpu(kind: str, make: Make) -> None:
    here, there = make(kind), make(kind, device="cpu")
    pairs = list(zip(steps(here, ahead=True), steps(there, ahead=False), strict=True))
    assert pairs
    for found, expected in pairs:
        assert torch.equal(found.labels.cpu(), expected.labels)
        for a, b in ((found.labeled, expected.labeled), (found.unlabeled, expected.unlabeled)):
            assert a is not None and b is not None
            assert torch.equal(a.rows.cpu(), b.rows) and a.total == b.total
            for view in ("weak", "strong"):
                mine, theirs = a.view(view).cpu(), b.view(view)
                assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
                if (kind, view) == (
                    "features",
                    "strong",
                ):  # its noise is a hash of the device's sine
                    assert torch.isfinite(mine).all()
                    continue
                # rounding may move a pixel at a mirrored border, or drop another token
                wrong = ~torch.isclose(mine, theirs, rtol=1e-3, atol=1e-3)
                assert float(wrong.float().mean()) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_gives_the_scores_of_a_cpu(kind: str, make: Make) -> None:
    here, there = make(kind), make(kind, device="cpu")
    rows = np.arange(len(here.data.inputs))[::-1][:40].copy()
    found, expected = (trainer.score(trainer.data.inputs, rows).cpu() for trainer in (here, there))
    # convolutions and matrix products of networks may use TensorFloat32; scores are cosines x 20
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0.1)
