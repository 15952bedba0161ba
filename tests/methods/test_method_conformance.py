"""Conformance tests of learning methods; they cover a new method as soon as it is registered.

Methods that are fitted instead of trained by steps have their own: test_fitted_methods.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_steps import TRAINED, losses, minibatch, one_label_absent_and_one_with_a_single_positive

from bbam_ray.data import Samples
from bbam_ray.engine import task
from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import METHODS
from bbam_ray.methods.method import Minibatch

Make = Callable[..., Trainer]


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_trainer: Make, figures: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, list[Any], dict[str, Any]]]:
    """Trains a method once: folder of its checkpoints, records by epoch, and last state."""

    @cache
    def train(method: str) -> tuple[Path, list[Any], dict[str, Any]]:
        trainer, folder, found = tiny_trainer(method=method), tmp_path_factory.mktemp(method), []
        while not trainer.finished:
            found.append(figures(trainer.run_epoch()))
            save_checkpoint(folder / f"{trainer.epoch}.pt", trainer.state_dict())
        return folder, found, trainer.state_dict()

    return train


@pytest.mark.parametrize("method", TRAINED)
class TestMethod:
    def test_the_loss_is_a_finite_number_and_on_labels_not_negative(
        self, method: str, tiny_trainer: Make
    ) -> None:
        trainer = tiny_trainer(method=method)
        for _ in range(3):
            trainer.run_epoch()
        for loss in losses(trainer):
            assert loss.total.shape == ()
            assert torch.isfinite(loss.total)
            assert loss.labeled >= 0

    def test_gradients_reach_backbone_projector_and_head(
        self, method: str, tiny_trainer: Make
    ) -> None:
        trainer = tiny_trainer(method=method)
        for _ in range(3):
            trainer.run_epoch()
        for loss in losses(trainer):
            trainer.model.zero_grad()
            loss.total.backward()
            for part in (trainer.model.backbone, trainer.model.projector, trainer.model.head):
                gradients = [p.grad for p in part.parameters() if p.grad is not None]
                assert gradients and all(torch.isfinite(g).all() for g in gradients)
                assert sum(float(g.abs().sum()) for g in gradients) > 0

    def test_the_loss_does_not_depend_on_how_a_step_is_divided(
        self, method: str, tiny_trainer: Make
    ) -> None:
        """Shares of two halves, each with the global total, add up to the loss of the whole."""
        trainer = tiny_trainer(method=method)
        trainer.run_epoch()
        trainer.model.eval()  # batch norm would normalize the halves separately
        whole = minibatch(trainer, "labeled")
        shares = []
        for rows in (whole.rows, whole.rows[:3], whole.rows[3:]):
            part = Minibatch(rows, whole.total, lambda view, r=rows: whole.view(view)[r])
            loss = trainer.method.labeled_loss(trainer.model, part, trainer.labels[rows])
            shares.append(float(loss.total.detach()))
        assert shares[0] == pytest.approx(shares[1] + shares[2], rel=1e-5)

    def test_state_round_trips(self, method: str, tiny_trainer: Make, identical: Callable) -> None:
        trainer, fresh = tiny_trainer(method=method), tiny_trainer(method=method)
        for _ in range(3):
            trainer.run_epoch()
        state = trainer.method.state_dict()
        fresh.method.load_state_dict(state)
        assert identical(fresh.method.state_dict(), state)
        fresh.method.load_sample_state(*trainer.method.sample_state())
        assert identical(fresh.method.sample_state(), trainer.method.sample_state())
        cosine = torch.linspace(-1, 1, 50).view(5, 10)
        assert torch.equal(fresh.method.logits(cosine), trainer.method.logits(cosine))
        scorer = tiny_trainer(method=method).method
        scorer.load_scoring_state(trainer.method.scoring_state())
        assert torch.equal(scorer.logits(cosine), trainer.method.logits(cosine))

    def test_logits_increase_with_the_cosine_before_any_statistics(
        self, method: str, tiny_trainer: Make
    ) -> None:
        logits = tiny_trainer(method=method).method.logits(
            torch.linspace(-1, 1, 41).unsqueeze(1).expand(-1, 10)
        )
        assert (logits.diff(dim=0) > 0).all()

    @pytest.mark.parametrize("stop", [1, 2, 3])
    def test_interrupted_equals_uninterrupted_bit_for_bit(
        self,
        method: str,
        stop: int,
        uninterrupted: Callable,
        tiny_trainer: Make,
        run_to_end: Callable,
        figures: Callable,
        identical: Callable,
    ) -> None:
        folder, expected, state = uninterrupted(method)
        second = tiny_trainer(method=method)
        second.load_state_dict(load_checkpoint(folder / f"{stop}.pt"))
        torch.rand(17)  # other random draws of the process must not matter
        records = [figures(record) for record in run_to_end(second)]
        assert identical(records, expected[stop:])
        assert identical(second.state_dict(), state)

    def test_hidden_labels_are_never_read(
        self,
        method: str,
        tiny_config: Callable,
        run_to_end: Callable,
        identical: Callable,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        config = tiny_config(method=method)
        true_data, true_audit = prepare_training(config)
        load = task.load_part

        def permuted(config: Any, part: str) -> Samples:
            """Permute all labels outside the labelled pool."""
            samples = load(config, part)
            labels, hidden = samples.labels.copy(), true_data.unlabeled
            labels[hidden] = 1 - labels[np.random.default_rng(1).permutation(hidden)]
            return replace(samples, labels=labels)

        monkeypatch.setattr(task, "load_part", permuted)
        false_data, false_audit = prepare_training(config)
        honest = Trainer(config, true_data, true_audit)
        misled = Trainer(config, false_data, false_audit)
        precision = [
            [record.scalars.get("pseudo_precision") for record in run_to_end(trainer)]
            for trainer in (honest, misled)
        ]
        assert identical(misled.state_dict(), honest.state_dict())
        claimed = torch.ones(len(true_data.unlabeled), 10, dtype=torch.int8)
        rows = np.arange(len(claimed))
        judged = [audit(claimed, claimed.bool(), rows) for audit in (true_audit, false_audit)]
        assert judged[0]["precision"] != judged[1]["precision"]  # the hidden labels do differ
        if any(precision[0]):
            assert precision[0] != precision[1]

    def test_an_absent_label_and_a_single_positive_train(
        self, method: str, tiny_config: Callable, run_to_end: Callable
    ) -> None:
        trainer = Trainer(
            tiny_config(method=method), one_label_absent_and_one_with_a_single_positive()
        )
        for record in run_to_end(trainer):
            for name, value in record.scalars.items():
                assert not isinstance(value, float) or np.isfinite(value), name
        for model in (trainer.model, trainer.average.module):
            for name, tensor in model.state_dict().items():
                assert torch.isfinite(tensor).all(), name
        scores = trainer.score(trainer.data.inputs, np.arange(90))
        assert torch.isfinite(scores).all()

    def test_records_name_only_columns_that_the_results_have(
        self, method: str, tiny_trainer: Make, run_to_end: Callable
    ) -> None:
        from bbam_ray.results import schemas

        trainer = tiny_trainer(method=method)
        for record in run_to_end(trainer):
            assert set(record.scalars) <= set(schemas.HISTORY.names)
            assert set(record.labels) <= set(schemas.LABELS.names)
            assert all(len(values) == 10 for values in record.labels.values())


def test_every_method_is_registered_under_its_own_name() -> None:
    assert all(method.name == name for name, method in METHODS.items())
