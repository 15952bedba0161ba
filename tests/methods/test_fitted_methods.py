"""Baselines that are fitted on frozen features: what they learn from, and how they are used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbam_ray.data import Samples
from bbam_ray.engine import task
from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
from bbam_ray.engine.export import ONNX, PROGRAM, export_model
from bbam_ray.engine.fitted_trainer import FittedTrainer, make_trainer
from bbam_ray.engine.folds import fold_result, write_files
from bbam_ray.engine.model import Model
from bbam_ray.engine.model_folder import WEIGHTS, load_weights, save_model
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import BASELINES, METHODS, run_config
from bbam_ray.methods.fitted import FittedMethod
from bbam_ray.models.fitted_head import FittedHead
from bbam_ray.results import schemas

FITTED = [name for name, method in METHODS.items() if issubclass(method, FittedMethod)]
WIDTH, LABELS = 7, 3
Make = Callable[..., FittedTrainer]
SCRIPT = Path(__file__).with_name("rank_fitted.py")


def drawn() -> dict[str, np.ndarray]:
    """Features that say something about the labels, at very different scales."""
    rng = np.random.default_rng(0)
    labels = (rng.random((160, LABELS)) < 0.4).astype(np.uint8)
    features = labels @ rng.normal(size=(LABELS, WIDTH)) + 0.7 * rng.normal(size=(160, WIDTH))
    return {"features": features * 10 ** rng.uniform(-2, 2, WIDTH) + 3, "labels": labels}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("features") / "data.npz"
    np.savez(path, **drawn())
    values = {"dataset": "features", "data_dir": str(path), "labeled_fraction": 0.5}
    return {**values, "validation_fraction": 0.3, "device": "cpu"}


@pytest.fixture(scope="module")
def make(settings: dict[str, Any]) -> Make:
    """Returns a function that makes the trainer of a method on features."""

    def trainer(method: str, **changes: Any) -> FittedTrainer:
        config = run_config({**settings, "method": method, **changes}, "test")
        made = make_trainer(config, *prepare_training(config))
        assert isinstance(made, FittedTrainer)
        return made

    return trainer


def scores(trainer: Trainer) -> torch.Tensor:
    return trainer.score(trainer.data.inputs, np.arange(len(trainer.data.inputs)))


def test_the_baselines_are_the_methods_of_the_issue() -> None:
    assert FITTED == ["logistic", "propagation", "logistic+propagation"]


def test_other_methods_are_trained_by_steps(tiny_config: Callable) -> None:
    config = tiny_config(method="supervised")
    trained = make_trainer(config, *prepare_training(config))
    assert type(trained) is Trainer


@pytest.mark.parametrize("method", FITTED)
class TestFittedMethod:
    def test_it_ends_after_one_epoch_and_has_learned(self, method: str, make: Make) -> None:
        trainer = make(method)
        assert not trainer.finished
        record = trainer.run_epoch()
        assert trainer.finished and trainer.epoch == trainer.best_epoch == 1
        assert trainer.kept_weights is None
        assert set(record.scalars) <= set(schemas.HISTORY.names)
        assert set(record.labels) <= set(schemas.LABELS.names)
        chance = float(trainer.data.validation_labels.double().mean())
        assert record.scalars["val_map"] > chance + 0.2
        assert (record.scalars["phase"], record.scalars["loss"]) == ("warmup", None)
        with pytest.raises(RuntimeError, match="training has ended after epoch 1"):
            trainer.run_epoch()

    def test_scores_are_those_of_the_head_on_the_plain_features(
        self, method: str, make: Make
    ) -> None:
        trainer = make(method)
        trainer.run_epoch()
        head = FittedHead(WIDTH, LABELS, 20)
        raw = torch.from_numpy(np.asarray(trainer.data.inputs[:])).float()
        views = trainer.data.views
        inputs = (raw - torch.tensor(views.mean)) / torch.tensor(views.std)
        # Validation samples are new to the fitted head.
        rows = np.sort(np.concatenate([trainer.data.labeled, trainer.data.unlabeled]))
        head.fit(
            inputs[torch.from_numpy(rows)],
            torch.from_numpy(np.searchsorted(rows, trainer.data.labeled)),
            trainer.data.labels,
            regression="logistic" in method,
            propagation="propagation" in method,
            regularization=None,
            alpha=0.9,
        )
        torch.testing.assert_close(scores(trainer), head(inputs), rtol=1e-3, atol=1e-4)

    def test_hidden_labels_are_never_read(
        self, method: str, settings: dict[str, Any], identical: Callable, monkeypatch: Any
    ) -> None:
        config = run_config({**settings, "method": method}, "test")
        data, _ = prepare_training(config)
        load = task.load_part

        def permuted(config: Any, part: str) -> Samples:
            samples = load(config, part)
            labels, hidden = samples.labels.copy(), data.unlabeled
            labels[hidden] = 1 - labels[np.random.default_rng(1).permutation(hidden)]
            return replace(samples, labels=labels)

        honest = make_trainer(config, *prepare_training(config))
        with monkeypatch.context() as patch:
            patch.setattr(task, "load_part", permuted)
            misled = make_trainer(config, *prepare_training(config))
        for trainer in (honest, misled):
            trainer.run_epoch()
        assert identical(misled.state_dict(), honest.state_dict())
        # Nor are the labels of validation samples, except for the metrics.
        flipped = replace(data, validation_labels=1 - data.validation_labels)
        blind = make_trainer(config, flipped)
        blind.run_epoch()
        assert blind.weight_choice.last_map != honest.weight_choice.last_map
        assert identical(blind.average.state_dict(), honest.average.state_dict())

    def test_the_labelled_ones_are_read(self, method: str, make: Make) -> None:
        first, other = make(method), make(method)
        other.labels = 1 - other.labels
        for trainer in (first, other):
            trainer.run_epoch()
        assert first.weight_choice.last_map > other.weight_choice.last_map + 0.2

    def test_saved_models_and_checkpoints_score_alike(
        self, method: str, make: Make, identical: Callable, tmp_path: Path
    ) -> None:
        trainer = make(method)
        trainer.run_epoch()
        expected = scores(trainer)
        save_model(tmp_path / "m", trainer, [0.1] * LABELS)
        model = Model(tmp_path / "m", "cpu")
        inputs = np.asarray(trainer.data.inputs[:])
        assert np.abs(model.logits(inputs) - expected.numpy()).max() <= 1e-5
        loaded, resumed = make(method), make(method)
        load_weights(tmp_path / "m", loaded)
        assert torch.equal(scores(loaded), expected)
        save_checkpoint(tmp_path / "state.pt", trainer.state_dict())
        resumed.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
        assert resumed.finished and torch.equal(scores(resumed), expected)
        assert identical(resumed.state_dict(), trainer.state_dict())

    def test_a_fold_yields_the_scores_of_its_saved_model(
        self, method: str, make: Make, tmp_path: Path
    ) -> None:
        for fold in range(2):
            trainer = make(method, folds=2, fold=fold)
            trainer.run_epoch()
            result = fold_result(trainer, with_models=True)
            assert result is not None and list(result.weights) == ["last"]
            write_files(result.weights["last"].files, tmp_path / str(fold))
            logits = Model(tmp_path / str(fold), "cpu").logits(
                np.asarray(trainer.data.inputs[result.rows])
            )
            np.testing.assert_allclose(result.weights["last"].logits, logits, atol=1e-5)

    def test_images_have_the_features_of_the_initial_backbone(
        self, method: str, tiny_config: Callable, tmp_path: Path
    ) -> None:
        config = tiny_config(method=method)
        trainer = make_trainer(config, *prepare_training(config))
        before = {k: v.clone() for k, v in trainer.model.backbone.state_dict().items()}
        record = trainer.run_epoch()
        assert 0 < record.scalars["val_map"] <= 1
        for name, tensor in trainer.model.backbone.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        save_model(tmp_path / "m", trainer, [0.0] * 10)
        inputs = np.asarray(trainer.data.inputs[:30])
        expected = trainer.score(trainer.data.inputs, np.arange(30)).numpy()
        assert np.abs(Model(tmp_path / "m", "cpu").logits(inputs) - expected).max() <= 1e-4

    def test_it_is_not_trained_by_steps(self, method: str, make: Make) -> None:
        trainer = make(method)
        with pytest.raises(TypeError, match="is fitted, not trained by steps"):
            trainer.method.labeled_loss(trainer.model, None, None)


def test_options_reach_the_fit(make: Make) -> None:
    changes: dict[str, list[dict[str, Any]]] = {
        "logistic": [{"regularization": 1e-4}, {"regularization": 10.0}],
        "propagation": [{"neighbors": 2}, {"neighbors": 40}, {"propagation_alpha": 0.1}],
        "logistic+propagation": [{"regularization": 1e-4}, {"propagation_alpha": 0.1}],
    }
    for method, variants in changes.items():
        all_scores = []
        for options in [{}, *variants]:
            trainer = make(method, **options)
            trainer.run_epoch()
            all_scores.append(scores(trainer))
        for index, first in enumerate(all_scores):
            for second in all_scores[:index]:
                assert (first - second).abs().max() > 1e-2, method


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("logistic", {"regularization": 0}),
        ("logistic", {"regularization": 1e7}),
        ("logistic", {"neighbors": 5}),
        ("propagation", {"regularization": 1.0}),
        ("propagation", {"neighbors": 0}),
        ("propagation", {"propagation_alpha": 1.0}),
        ("logistic+propagation", {"propagation_alpha": -0.1}),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(
    method: str, option: dict[str, Any], settings: dict[str, Any]
) -> None:
    (name,) = option
    with pytest.raises(UsageError, match=name):
        run_config({**settings, "method": method, **option}, "test")


def test_weights_of_other_sizes_are_wrong_usage(make: Make, tmp_path: Path) -> None:
    trainer = make("logistic+propagation")
    trainer.run_epoch()
    save_model(tmp_path / "m", trainer, [0.0] * LABELS)
    description = tmp_path / "m" / "config.json"
    content = json.loads(description.read_text())
    for name, size in (("input_mean", WIDTH + 1), ("input_std", WIDTH + 1)):
        content[name] = [1.0] * size
    description.write_text(json.dumps(content | {"input_shape": [WIDTH + 1]}))
    with pytest.raises(UsageError, match="different models"):
        Model(tmp_path / "m", "cpu")


def test_two_ranks_fit_what_one_process_fits(
    settings: dict[str, Any], make: Make, gloo_group: Callable, identical: Callable, tmp_path: Path
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    ranks = gloo_group(SCRIPT, 2, tmp_path)
    for method in FITTED:
        trainer = make(method)
        record = trainer.run_epoch()
        for rank in ranks:
            assert identical(rank[method]["average"], trainer.average.module.state_dict())
            assert rank[method]["val_map"] == record.scalars["val_map"]
            assert torch.equal(rank[method]["logits"], trainer.weight_choice.last_logits)


@pytest.mark.parametrize("method", BASELINES)
def test_it_is_exported_to_other_runtimes(method: str, make: Make, tmp_path: Path) -> None:
    """Every file is checked against the original, in batches of one and of many."""
    trainer = make(method)
    trainer.run_epoch()
    save_model(tmp_path / "model", trainer, [0.0] * LABELS)
    (tmp_path / "out").mkdir()
    samples = np.asarray(trainer.data.inputs[:40])
    differences = export_model(
        Model(tmp_path / "model", "cpu"), tmp_path / "out", [ONNX, PROGRAM], samples
    )
    assert differences.keys() == {WEIGHTS, ONNX, PROGRAM}
