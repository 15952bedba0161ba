"""Patience: when a run ends because its validation metric does not improve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bbam_ray.engine.trainer import Trainer

Make = Callable[..., Trainer]


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Let the epochs report these validation metrics."""
    coming = iter(values)

    def figures(logits: Any, labels: Any) -> tuple[dict[str, float], dict[str, list[float]]]:
        return {"map": next(coming)}, {}

    monkeypatch.setattr("bbam_ray.engine.trainer.validation_metrics", figures)


@pytest.mark.parametrize(
    ("values", "patience", "end", "best"),
    [
        ([0.1, 0.2, 0.3, 0.2, 0.2, 0.9], 2, 5, 3),  # two epochs without an improvement
        ([0.9, 0.8, 0.3, 0.2, 0.2, 0.1], 2, 4, 1),  # warm-up does not count as waiting
        ([0.1, 0.2, 0.3, 0.3, 0.4, 0.5], 2, 6, 6),  # an equal value is no improvement
        ([0.1, 0.2, 0.3, 0.3, 0.3, 0.5], 2, 5, 3),
        ([0.1, 0.2, 0.1, 0.1, 0.1, 0.1], None, 6, 2),  # the end of the warm-up
        ([0.1, 0.2, 0.9, 0.3, 0.3, 0.3], None, 6, 6),  # not the highest of a noisy curve
    ],
)
def test_patience_ends_a_run_that_does_not_improve(
    values: list[float],
    patience: int | None,
    end: int,
    best: int,
    tiny_trainer: Make,
    run_to_end: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted(monkeypatch, values)
    trainer = tiny_trainer(epochs=6, patience=patience)
    run_to_end(trainer)
    assert (trainer.epoch, trainer.best_epoch) == (end, best)
    assert (trainer.kept_weights is None) == (best == end)


def test_patience_is_not_ignored_where_all_epochs_are_supervised(
    tiny_trainer: Make, run_to_end: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.5, *[0.1] * 9])
    trainer = tiny_trainer(method="supervised", epochs=10, warmup_epochs=2, patience=2)
    run_to_end(trainer)
    assert trainer.epoch < 10


def test_patience_survives_an_interruption(
    tiny_trainer: Make, run_to_end: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.1, 0.2, 0.5, 0.4, 0.4, 0.9])
    first = tiny_trainer(epochs=6, patience=2)
    for _ in range(4):
        first.run_epoch()
    second = tiny_trainer(epochs=6, patience=2)
    second.load_state_dict(first.state_dict())
    run_to_end(second)
    assert (second.epoch, second.best_epoch) == (5, 3)
