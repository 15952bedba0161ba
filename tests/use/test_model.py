"""A stored model gives the scores of training; a damaged folder is refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bbam_ray import load_model
from bbam_ray.engine.model import Model, find_model, probabilities
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS

Stored = tuple[Trainer, Path]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_scores_as_in_training(
    method: str, tiny_trainer: Callable[..., Trainer], run_to_end: Callable, tmp_path: Path
) -> None:
    trainer = tiny_trainer(method=method)
    run_to_end(trainer)
    save_model(tmp_path / "m", trainer, [0.0] * 10)
    inputs = np.asarray(trainer.data.inputs)
    expected = trainer.score(trainer.data.inputs, np.arange(len(inputs))).numpy()
    found = Model(tmp_path / "m", "cpu").logits(inputs)
    assert found.dtype == np.float32 and np.abs(found - expected).max() <= 1e-5


def test_features_are_normalised_as_in_training(features_model: Stored) -> None:
    trainer, folder = features_model
    inputs = np.asarray(trainer.data.inputs[np.arange(60)])
    expected = trainer.score(trainer.data.inputs, np.arange(60)).numpy()
    assert np.abs(load_model(folder).logits(inputs) - expected).max() <= 1e-5
    assert np.abs(load_model(folder).logits(torch.from_numpy(inputs)) - expected).max() <= 1e-5


def test_probabilities_and_decisions_follow_from_the_logits(
    digits_model: Stored, scenes: np.ndarray
) -> None:
    model = load_model(digits_model[1])
    logits = model.logits(scenes)
    chances = model.predict_proba(scenes)
    assert chances.dtype == np.float64 and ((chances > 0) & (chances < 1)).all()
    assert np.allclose(np.log(chances / (1 - chances)), logits, atol=1e-4)
    assert np.array_equal(model.predict(scenes), logits > (0.5 * np.arange(10) - 2))
    assert model.label_names == [str(k) for k in range(10)]
    assert model.logits(scenes[:0]).shape == (0, 10)


def test_high_scores_keep_their_order_as_probabilities() -> None:
    logits = np.arange(0, 36, 0.5, dtype=np.float32)
    assert (np.diff(probabilities(logits)) > 0).all()


def test_images_may_be_files(digits_model: Stored, scenes: np.ndarray, tmp_path: Path) -> None:
    from PIL import Image

    names = [tmp_path / f"{row}.png" for row in range(3)]
    for row, name in enumerate(names):
        Image.fromarray(scenes[row, 0]).save(name)
    model = load_model(digits_model[1])
    assert np.array_equal(model.logits(names), model.logits(scenes[:3]))
    assert np.array_equal(model.logits([str(n) for n in names]), model.logits(scenes[:3]))
    (tmp_path / "1.png").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"1\.png: cannot identify"):
        model.logits(names)


def test_a_random_generator_of_the_user_is_left_alone(digits_model: Stored) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_model(digits_model[1])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((2, 1, 24, 25), np.uint8), r"uint8 \(2, 1, 24, 25\).*\(N, 1, 24, 24\)"),
        (np.zeros((2, 1, 24, 24), np.float32), "float32.*takes uint8"),
        (np.zeros((24, 24), np.uint8), r"\(24, 24\)"),
    ],
)
def test_samples_of_another_kind_are_refused(
    inputs: np.ndarray, words: str, digits_model: Stored
) -> None:
    with pytest.raises(UsageError, match=words):
        load_model(digits_model[1]).predict(inputs)


class TestFolder:
    @pytest.fixture()
    def folder(self, digits_model: Stored, tmp_path: Path) -> Path:
        return Path(shutil.copytree(digits_model[1], tmp_path / "copy"))

    @pytest.mark.parametrize(
        "name", ["model.safetensors", "config.json", "labels.json", "thresholds.json"]
    )
    def test_a_missing_file_is_named(self, name: str, folder: Path) -> None:
        (folder / name).unlink()
        with pytest.raises(UsageError, match=name):
            load_model(folder)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "labels.json"])
    def test_a_damaged_file_is_named(self, name: str, folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UsageError, match=f"{name}: cannot be read"):
            load_model(folder)

    def _change(self, folder: Path, **values: object) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | values))

    def test_a_newer_format_is_refused(self, folder: Path) -> None:
        self._change(folder, format=2)
        with pytest.raises(UsageError, match=r"format 2 is from a newer version.*update"):
            load_model(folder)

    def test_a_model_from_before_the_normalisation_was_kept_is_refused(self, folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        del content["input_mean"]
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(UsageError, match=r"'input_mean'.*train it again"):
            load_model(folder)

    def test_weights_of_another_network_are_refused(self, folder: Path) -> None:
        self._change(folder, feature_dim=9)
        with pytest.raises(UsageError, match=r"does not fit config\.json"):
            load_model(folder)

    def test_a_model_for_other_labels_is_refused(self, folder: Path) -> None:
        (folder / "labels.json").write_text(json.dumps(["a", "b"]))
        with pytest.raises(UsageError, match="10 thresholds for 2 labels"):
            load_model(folder)
        (folder / "thresholds.json").write_text("[0, 0]")
        with pytest.raises(UsageError, match=r"weights are for 10 labels, labels\.json names 2"):
            load_model(folder)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite_are_refused(self, value: float, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["network.projector.0.bias"][3] = value
        save_file(tensors, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        del config["weights_sha256"]  # a forged model can omit it
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            UsageError, match=r"projector\.0\.bias holds numbers that are not finite"
        ):
            load_model(folder)

    def test_a_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no model\.safetensors"):
            load_model(tmp_path)

    def test_the_folder_of_a_run_finds_its_model(self, folder: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        shutil.copytree(folder, run / "checkpoints" / "model")
        assert find_model(run) == run / "checkpoints" / "model"
        assert find_model(run / "checkpoints") == run / "checkpoints" / "model"
