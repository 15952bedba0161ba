"""Scores of validation samples that the trainer passes to refreshes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods.method import Snapshot

Make = Callable[..., Trainer]
MEASURED = {"pseudo_labels": "metric", "pseudo_label_weight": "measured", "threshold_positives": 1}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Trainer], list[Snapshot]]:
    """Collects the snapshots of a trainer's refreshes."""

    def watch(trainer: Trainer) -> list[Snapshot]:
        snapshots: list[Snapshot] = []
        refresh = trainer.method.refresh

        def noted(snapshot: Snapshot) -> None:
            snapshots.append(snapshot)
            refresh(snapshot)

        monkeypatch.setattr(trainer.method, "refresh", noted)
        return snapshots

    return watch


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("method", ["bbam", "cap", "d2l", "dicap"])
def test_they_are_those_of_the_averaged_model_at_the_refresh(
    method: str, warmup: int, tiny_trainer: Make, watched: Callable
) -> None:
    trainer = tiny_trainer(method=method, warmup_epochs=warmup, **MEASURED)
    snapshots = watched(trainer)
    while not trainer.finished:
        before = trainer.score(trainer.data.inputs, trainer.data.validation)
        count = len(snapshots)
        record = trainer.run_epoch()
        if len(snapshots) > count:
            assert torch.equal(snapshots[-1].held_out.logits, before)
            assert torch.equal(snapshots[-1].held_out.labels, trainer.data.validation_labels)
            assert record.scalars["held_out"] == len(before)
            assert "pseudo_threshold_positive" in record.labels
        else:
            assert "held_out" not in record.scalars
    assert snapshots


@pytest.mark.parametrize(
    ("changes", "recorded"),
    [({}, None), ({**MEASURED, "validation_fraction": 0.0}, 0)],
    ids=["unused", "no validation samples"],
)
def test_a_refresh_gets_none_where_none_are_used_or_known(
    changes: dict[str, Any], recorded: int | None, tiny_trainer: Make, watched: Callable
) -> None:
    trainer = tiny_trainer(method="bbam", **changes)
    snapshots = watched(trainer)
    while not trainer.finished:
        record = trainer.run_epoch()
    assert all(snapshot.held_out is None for snapshot in snapshots) and snapshots
    assert record.scalars.get("held_out") == recorded
    assert "pseudo_threshold_positive" not in record.labels


def test_without_validation_samples_a_run_is_that_of_the_plain_settings(
    tiny_trainer: Make, run_to_end: Callable, identical: Callable
) -> None:
    runs = [
        tiny_trainer(method="cap", validation_fraction=0.0, **settings)
        for settings in ({}, MEASURED)
    ]
    for trainer in runs:
        run_to_end(trainer)
    assert identical(runs[0].state_dict()["model"], runs[1].state_dict()["model"])


@pytest.mark.parametrize("method", ["bbam", "dicap"])
def test_out_of_fold_scores_take_the_place_of_validation_samples(
    method: str, tiny_config: Callable, watched: Callable
) -> None:
    config = tiny_config(method=method, validation_fraction=0.0, **MEASURED)
    data, audit = prepare_training(config)
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(len(data.labels), 10, generator=rng) + 2 * data.labels
    trainer = Trainer(config, replace(data, out_of_fold=(logits, data.labels)), audit)
    snapshots = watched(trainer)
    while not trainer.finished:
        record = trainer.run_epoch()
    assert record.scalars["held_out"] == trainer.scores.num_held_out == len(logits)
    assert not snapshots[-1].held_out.of_this_model
    assigned, unlabeled = trainer.method.assigned, len(data.unlabeled)
    assert assigned.weight is not None
    for k in range(10):
        share = float((logits[:, k].double() >= assigned.thresholds[1, k]).double().mean())
        assert int(assigned.labels[:, k].sum()) == math.floor(share * unlabeled + 1e-9)
