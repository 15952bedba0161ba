"""Linear networks on feature vectors: start from logistic regression, refresh with a neighbour graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.core.logistic import choose_regularization, logistic_weights
from bbam_ray.engine.model import load_model
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config

SCRIPT = Path(__file__).parents[1] / "methods" / "rank_methods.py"
LINEAR = {"backbone": "identity", "projector": "none", "head_init": "logistic"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A data set of 300 feature vectors with 5 labels that follow from 4 of 20 directions."""
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    random = np.random.default_rng(3)
    hidden = random.normal(size=(300, 4))
    features = hidden @ random.normal(size=(4, 20)) + 0.3 * random.normal(size=(300, 20)) + 1
    labels = hidden @ random.normal(size=(4, 5)) > 0.8
    np.savez(path, features=features.astype("float32"), labels=labels.astype("int8"))
    return {
        "dataset": "features",
        "data_dir": str(path),
        "labeled_fraction": 0.3,
        "seed": 5,
        "epochs": 4,
        "warmup_epochs": 1,
        "warmup_passes": 1,
        "device": "cpu",
    }


def trainer(settings: dict[str, Any], **changes: Any) -> Trainer:
    config = run_config({**settings, **changes}, "test")
    return Trainer(config, *prepare_training(config))


def inputs(of: Trainer, rows: np.ndarray) -> Tensor:
    return of.views.plain(torch.from_numpy(np.asarray(of.data.inputs[rows])))


@pytest.mark.parametrize("method", ["bbam", "cap", "supervised"])
def test_an_untrained_linear_network_ranks_like_the_regression(
    method: str, settings: dict[str, Any]
) -> None:
    start = trainer(settings, method=method, **LINEAR)
    data = start.data
    units = F.normalize(inputs(start, data.labeled).double(), dim=1) * 20**0.5
    strength = choose_regularization(units, data.labels)
    weights, biases = logistic_weights(units, data.labels, strength)
    others = F.normalize(inputs(start, data.unlabeled).double(), dim=1) * 20**0.5
    expected = others @ weights.T + biases
    scores = start.score(data.inputs, data.unlabeled)
    # Scores of float32 may swap regression scores that are closer than its rounding.
    for k in range(5):
        in_order = expected[:, k][scores[:, k].argsort()]
        assert float((in_order[:-1] - in_order[1:]).max()) < 1e-4
    lengths = start.model.head.weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((5,), 3**-0.5))
    assert torch.equal(start.model.head.weight, start.average.module.head.weight)


def test_any_projector_starts_from_the_regression_on_its_own_features(
    settings: dict[str, Any],
) -> None:
    for changes in ({"projector": "linear"}, {"projector": "mlp"}, {"backbone": "mlp"}):
        random = trainer(
            settings, **{**LINEAR, "head_init": "random", "projector": "mlp"} | changes
        )
        start = trainer(settings, **{**LINEAR, "projector": "mlp"} | changes)
        before, after = random.model.state_dict(), start.model.state_dict()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert changed == ["head.weight"]


def test_a_label_with_one_class_keeps_its_random_weights(settings: dict[str, Any]) -> None:
    config = run_config({**settings, **LINEAR}, "test")
    data, _ = prepare_training(config)
    data.labels[:, 2] = 0
    start = Trainer(config, data)
    plain = trainer(settings, **{**LINEAR, "head_init": "random"})
    same = (start.model.head.weight == plain.model.head.weight).all(dim=1)
    assert same.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("method", ["bbam", "cap"])
def test_the_graph_changes_pseudo_labels_and_weight_0_does_not(
    method: str, settings: dict[str, Any]
) -> None:
    common = {"method": method, "warmup_epochs": 0, **LINEAR}
    runs = {
        "off": trainer(settings, **common),
        "no weight": trainer(settings, **common, graph_neighbors=8, graph_weight=0.0),
        "on": trainer(settings, **common, graph_neighbors=8),
    }
    pseudo = {}
    for name, run in runs.items():
        run.run_epoch()
        pseudo[name] = run.method.pseudo_labels()[0]
    assert torch.equal(pseudo["off"], pseudo["no weight"])
    assert not torch.equal(pseudo["off"], pseudo["on"])
    assert torch.equal(pseudo["off"].sum(0), pseudo["on"].sum(0))  # how many is not affected


def test_two_ranks_train_as_one_process(
    settings: dict[str, Any], gloo_group: Callable, tmp_path: Path
) -> None:
    runs = {
        method: {**settings, **LINEAR, "method": method, "graph_neighbors": 8}
        for method in ("bbam", "cap")
    }
    (tmp_path / "settings.json").write_text(json.dumps(runs), encoding="utf-8")
    two = gloo_group(SCRIPT, 2, tmp_path)
    for method, changes in runs.items():
        one = trainer(changes)
        start = one.average.module.head.weight.detach().clone()
        while not one.finished:
            one.run_epoch()
            states = [rank[method][one.epoch]["state"]["model"]["head.weight"] for rank in two]
            assert torch.equal(*states)
            torch.testing.assert_close(states[0], one.model.head.weight, rtol=1e-4, atol=1e-5)
            if one.epoch > 1:
                index = torch.cat(
                    [r[method][one.epoch]["samples"]["unlabeled"]["index"] for r in two]
                )
                labels = torch.cat([r[method][one.epoch]["pseudo"]["labels"] for r in two])
                expected = one.sample_state()["unlabeled"]
                together = torch.empty_like(labels)
                together[index] = labels
                assert torch.equal(together[expected["index"]], expected["pseudo"])
        assert float((one.average.module.head.weight.detach() - start).abs().max()) > 1e-3


@pytest.mark.parametrize("projector", ["none", "linear"])
def test_a_saved_linear_model_predicts_as_the_trainer(
    projector: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    run = trainer(settings, **{**LINEAR, "projector": projector})
    run.run_epoch()
    save_model(tmp_path / "model", run, [0.0] * 5)
    model = load_model(tmp_path / "model", "cpu")
    rows = run.data.unlabeled
    stored = torch.from_numpy(np.asarray(run.data.inputs[rows]))
    expected = run.score(run.data.inputs, rows)
    torch.testing.assert_close(
        torch.from_numpy(model.logits(stored.numpy())), expected, rtol=1e-5, atol=1e-5
    )
