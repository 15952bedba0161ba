"""Only views that are used are computed; a step and a refresh each read a sample once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.data.cache.row_file import StoredRows, write_rows
from bbam_ray.data.views.images import Views
from bbam_ray.engine import evaluation, minibatches
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import METHODS
from bbam_ray.methods.fitted import FittedMethod

Make = Callable[..., Trainer]


@pytest.fixture()
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Number of samples by computed view."""
    seen: Counter[str] = Counter()
    for name in ("plain", "weak", "strong"):
        original = getattr(Views, name)

        def view(
            self: Views, inputs: Tensor, *noise: Any, _n: str = name, _o: Any = original
        ) -> Any:
            seen[_n] += len(inputs)
            return _o(self, inputs, *noise)

        monkeypatch.setattr(Views, name, view)
    return seen


@pytest.fixture()
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Row indices in the order in which they were read."""
    rows: list[int] = []
    read = evaluation.read_rows

    def watched(inputs: np.ndarray, wanted: np.ndarray) -> Tensor:
        rows.extend(wanted.tolist())
        return read(inputs, wanted)

    monkeypatch.setattr(evaluation, "read_rows", watched)
    monkeypatch.setattr(minibatches, "read_rows", watched)
    return rows


def test_a_warm_up_epoch_computes_strong_views_of_labelled_samples_only(
    tiny_trainer: Make, counted: Counter[str], decoded: list[int]
) -> None:
    trainer = tiny_trainer(validation_fraction=0, warmup_passes=3)
    trainer.run_epoch()
    assert counted == {"strong": 3 * len(trainer.data.labeled)}
    assert Counter(decoded) == dict.fromkeys(trainer.data.labeled.tolist(), 3)


def test_a_main_epoch_computes_one_strong_view_per_entry_and_one_plain_one_per_sample(
    tiny_trainer: Make, counted: Counter[str], decoded: list[int]
) -> None:
    trainer = tiny_trainer(
        validation_fraction=0, warmup_epochs=0, labeled_batch=8, unlabeled_batch=20
    )
    trainer.run_epoch()
    data = trainer.data
    steps = -(-len(data.unlabeled) // 20)
    assert counted["weak"] == 0
    assert counted["plain"] == len(data.labeled) + len(data.unlabeled)
    assert counted["strong"] == 8 * steps + len(data.unlabeled)
    times = Counter(decoded)
    assert all(times[row] == 2 for row in data.unlabeled.tolist())  # refresh and its one step
    assert sum(times[row] for row in data.labeled.tolist()) == len(data.labeled) + 8 * steps


@pytest.fixture()
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that were read from files of stored rows."""
    count: Counter[str] = Counter()
    original = StoredRows._read_into

    def read(self: StoredRows, start: int, target: memoryview) -> None:
        count["bytes"] += len(target)
        original(self, start, target)

    monkeypatch.setattr(StoredRows, "_read_into", read)
    return count


@pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if not issubclass(method, FittedMethod)]
)
def test_a_step_reads_each_sample_once_however_many_views_the_method_asks_for(
    method: str, tiny_config: Callable[..., Any], bytes_read: Counter[str], tmp_path: Path
) -> None:
    config = tiny_config(method=method, validation_fraction=0)
    data, _ = prepare_training(config)
    write_rows(tmp_path / "x.rows", data.inputs, data.inputs.shape[1:], np.uint8, {})
    stored = StoredRows(tmp_path / "x.rows")
    row_bytes = stored[:1].nbytes
    trainer = Trainer(config, replace(data, inputs=stored), None)
    take_steps, phases = trainer.take_steps, set()

    def counted(steps: Any, *, main_phase: bool) -> Any:
        bytes_read.clear()
        losses = take_steps(steps, main_phase=main_phase)
        assert bytes_read["bytes"] == steps.samples * row_bytes
        phases.add(main_phase)
        return losses

    trainer.take_steps = counted
    while trainer.epoch < config.training.epochs:
        trainer.run_epoch()
    assert phases == ({True, False} if trainer.method.semi_supervised else {False})


def test_the_views_of_a_step_are_made_of_one_reading(
    tiny_trainer: Make, counted: Counter[str], decoded: list[int]
) -> None:
    trainer = tiny_trainer(validation_fraction=0, warmup_epochs=0)
    step = next(iter(trainer._steps(1, main_phase=True)))
    assert not decoded  # nothing is read before a view is asked for
    views = [step.unlabeled.view(kind) for kind in ("weak", "strong", "weak")]
    torch.testing.assert_close(views[0], views[2], rtol=0, atol=0)
    assert len(decoded) == step.unlabeled.total
    assert counted == {"weak": 2 * len(decoded), "strong": len(decoded)}


def test_the_refresh_reads_every_sample_once_for_both_models(
    tiny_trainer: Make, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(validation_fraction=0, warmup_epochs=0, evaluation_batch=17)
    before: list[int] = []
    refresh = trainer.method.refresh

    def watched(snapshot: Any) -> None:
        before.extend(decoded)
        refresh(snapshot)

    monkeypatch.setattr(trainer.method, "refresh", watched)
    trainer.run_epoch()
    assert before == [*trainer.data.labeled.tolist(), *trainer.data.unlabeled.tolist()]


def test_evaluation_computes_the_plain_view_of_each_validation_sample_once(
    tiny_trainer: Make, counted: Counter[str], decoded: list[int]
) -> None:
    trainer = tiny_trainer(warmup_passes=1)
    trainer.run_epoch()
    assert counted == {"strong": len(trainer.data.labeled), "plain": len(trainer.data.validation)}
    assert decoded[-len(trainer.data.validation) :] == trainer.data.validation.tolist()


def test_the_snapshot_holds_raw_features_and_averaged_scores_in_evaluation_mode(
    tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(validation_fraction=0, warmup_epochs=1, evaluation_batch=17)
    trainer.run_epoch()
    seen: list[Any] = []
    refresh = trainer.method.refresh

    def watched(snapshot: Any) -> None:
        data, plain = trainer.data, trainer.views.plain
        model, average = trainer.model.eval(), trainer.average.module
        seen.append(replace(snapshot, unlabeled_cosine=snapshot.unlabeled_cosine.clone()))
        with torch.no_grad():
            inputs = plain(torch.from_numpy(data.inputs[data.unlabeled]))
            seen.extend([model(inputs)[0], average(inputs)[1], model(inputs)[1]])
            seen.append(model(plain(torch.from_numpy(data.inputs[data.labeled])))[0])
        refresh(snapshot)

    monkeypatch.setattr(trainer.method, "refresh", watched)
    trainer.run_epoch()
    snapshot, features, averaged, raw, labeled = seen
    torch.testing.assert_close(snapshot.features, torch.cat([labeled, features]))
    torch.testing.assert_close(snapshot.unlabeled_cosine, averaged)
    assert not torch.allclose(averaged, raw)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_scores_do_not_depend_on_the_evaluation_batch(batch: int, tiny_trainer: Make) -> None:
    trainer = tiny_trainer()
    rows = np.arange(30)
    expected = trainer.score(trainer.data.inputs, rows)
    other = tiny_trainer(evaluation_batch=batch)
    torch.testing.assert_close(other.score(trainer.data.inputs, rows), expected)
    assert trainer.score(trainer.data.inputs, rows[:0]).shape == (0, 10)
