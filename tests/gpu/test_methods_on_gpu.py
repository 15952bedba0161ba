"""Conformance of all methods on a GPU; they cover a new method as soon as it is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from method_steps import TRAINED, losses, minibatch, one_label_absent_and_one_with_a_single_positive

from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.methods import METHODS
from bbam_ray.methods.method import Minibatch
from bbam_ray.results import schemas

pytestmark = pytest.mark.gpu

Make = Callable[..., Trainer]
FITTED = sorted(METHODS.keys() - set(TRAINED))


@pytest.fixture(scope="module")
def exact(on_device: Make) -> Make:
    """Trainers without bfloat16; a GPU may use TensorFloat32 in its networks."""
    return lambda **changes: on_device(amp=False, **changes)


def assert_finite(records: list[EpochRecord]) -> None:
    for record in records:
        assert set(record.scalars) <= set(schemas.HISTORY.names)
        for name, value in record.scalars.items():
            assert not isinstance(value, float) or np.isfinite(value), name


@pytest.mark.parametrize("method", TRAINED)
class TestMethod:
    def test_it_trains_and_everything_stays_on_the_device(
        self,
        method: str,
        on_device: Make,
        run_to_end: Callable,
        devices_of: Callable,
        device: torch.device,
    ) -> None:
        trainer = on_device(method=method)
        records = run_to_end(trainer)
        assert_finite(records)
        assert len(records) == 4
        assert devices_of([p.data for p in trainer.model.parameters()]) == {device.type}
        assert devices_of(trainer.average.module.state_dict()) == {device.type}
        scores = trainer.score(trainer.data.inputs, np.arange(20))
        assert scores.device.type == device.type and torch.isfinite(scores).all()
        if device.type == "cuda":
            assert all(record.scalars["gpu_memory"] > 0 for record in records)

    def test_a_warm_up_epoch_is_that_of_a_cpu(self, method: str, exact: Make) -> None:
        found, expected = (
            trainer.run_epoch().scalars
            for trainer in (exact(method=method), exact(method=method, device="cpu"))
        )
        assert found["loss"] == pytest.approx(expected["loss"], rel=0.02)
        assert found["val_map"] == pytest.approx(expected["val_map"], abs=0.05)

    def test_gradients_reach_all_parts(self, method: str, exact: Make) -> None:
        trainer = exact(method=method)
        for _ in range(3):
            trainer.run_epoch()
        for loss in losses(trainer):
            assert torch.isfinite(loss.total) and loss.labeled >= 0
            trainer.model.zero_grad()
            loss.total.backward()
            for part in (trainer.model.backbone, trainer.model.projector, trainer.model.head):
                gradients = [p.grad for p in part.parameters() if p.grad is not None]
                assert sum(float(g.abs().sum()) for g in gradients) > 0
                assert all(torch.isfinite(g).all() for g in gradients)

    def test_the_loss_does_not_depend_on_how_a_step_is_divided(
        self, method: str, exact: Make
    ) -> None:
        trainer = exact(method=method)
        trainer.run_epoch()
        trainer.model.eval()
        whole = minibatch(trainer, "labeled")
        shares = []
        for rows in (whole.rows, whole.rows[:3], whole.rows[3:]):
            part = Minibatch(rows, whole.total, lambda view, r=rows: whole.view(view)[r])
            loss = trainer.method.labeled_loss(trainer.model, part, trainer.labels[rows])
            shares.append(float(loss.total.detach()))
        assert shares[0] == pytest.approx(shares[1] + shares[2], rel=5e-3)

    def test_an_absent_label_and_a_single_positive_train(
        self, method: str, tiny_config: Callable, run_to_end: Callable, device: torch.device
    ) -> None:
        config = tiny_config(method=method, device=device.type)
        trainer = Trainer(config, one_label_absent_and_one_with_a_single_positive())
        assert_finite(run_to_end(trainer))
        assert all(torch.isfinite(t).all() for t in trainer.model.state_dict().values())


@pytest.mark.parametrize("method", FITTED)
def test_a_fitted_method_scores_as_on_a_cpu(
    method: str, exact: Make, run_to_end: Callable, device: torch.device
) -> None:
    changes: dict[str, Any] = {"method": method, "epochs": 1, "warmup_epochs": 0}
    trainers = [exact(**changes), exact(**changes, device="cpu")]
    for trainer in trainers:
        assert_finite(run_to_end(trainer))
    here, there = (trainer.score(trainer.data.inputs, np.arange(60)).cpu() for trainer in trainers)
    assert float((here - there).abs().mean()) < 0.05 * float(there.std())
