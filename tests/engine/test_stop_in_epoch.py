"""A run that stops in the middle of an epoch and resumes equals one that never stopped, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from method_steps import TRAINED

from bbam_ray.engine import checkpoint_folder as folders
from bbam_ray.engine import minibatches
from bbam_ray.engine.session import LocalSession, run_epochs
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import StorageError, TrainingStoppedError

Make = Callable[..., Trainer]
#: several steps in the warm-up, and in the main phase
STEPS = {"labeled_batch": 8, "unlabeled_batch": 8}
WARMUP, MAIN = 2, 3  # an epoch of each phase; 3 is the first of the main phase


class AtStep:
    """A request that is made before some steps, of some epochs: (epoch, step)."""

    def __init__(self, trainer: Trainer, *moments: tuple[int, int]) -> None:
        self._trainer, self._moments = trainer, set(moments)

    def __call__(self) -> bool:
        running = self._trainer.running
        if running is None:  # between two epochs
            return False
        return (self._trainer.epoch, running.step) in self._moments


def timeless(records: list[EpochRecord]) -> list[dict[str, Any]]:
    """Records without the columns that depend on the clock."""
    clock = ("seconds_", "images_per_second")
    return [
        asdict(record)
        | {"scalars": {k: v for k, v in record.scalars.items() if not k.startswith(clock)}}
        for record in records
    ]


def train(
    trainer: Trainer, folder: Path, *moments: tuple[int, int]
) -> tuple[list[EpochRecord], bool]:
    """Train from the newest checkpoint; all records by now, and whether training has stopped."""
    records: list[EpochRecord] = []
    session = LocalSession(
        folder,
        lambda record, again: records.append(record),
        requested=AtStep(trainer, *moments),
    )
    try:
        for _ in run_epochs(trainer, session):
            pass
    except TrainingStoppedError:
        return records, True
    return records, False


def whole_state(trainer: Trainer) -> dict[str, Any]:
    """Everything a checkpoint has, and the state of torch's global generator."""
    state = {"trainer": trainer.state_dict(), "samples": trainer.sample_state()}
    return state | {"generator": torch.get_rng_state()}


@pytest.fixture(scope="module")
def undisturbed(
    tiny_trainer: Make, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[list[dict[str, Any]], dict[str, Any], list[int]]]:
    """Trains a configuration once: records, last state, and steps by epoch."""

    @cache
    def run(**changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any], list[int]]:
        trainer, steps = tiny_trainer(**STEPS, **changes), []
        take = trainer.take_steps

        def counted(taken: Any, *, main_phase: bool) -> dict[str, Any]:
            steps.append(len(taken))
            return take(taken, main_phase=main_phase)

        trainer.take_steps = counted  # type: ignore[method-assign]
        records, stopped = train(trainer, tmp_path_factory.mktemp("whole"))
        assert not stopped and min(steps) > 2
        return timeless(records), whole_state(trainer), steps

    return run


def assert_equals_undisturbed(
    make: Callable[[], Trainer],
    folder: Path,
    moments: list[tuple[int, int]],
    undisturbed: tuple[list[dict[str, Any]], dict[str, Any], list[int]],
    identical: Callable[[Any, Any], bool],
) -> None:
    """Stop at each moment in turn and resume in a new trainer."""
    for epoch, step in moments:
        trainer = make()
        torch.rand(17)  # other random draws of the process must not matter
        _, stopped = train(trainer, folder, (epoch, step))
        assert stopped
        newest = next(folders.newest_first(folder))
        assert (folders.epoch_of(newest), folders.step_of(newest)) == (epoch - 1, step)
        assert folders.defect(newest) is None
    last = make()
    torch.rand(5)
    records, stopped = train(last, folder)
    assert not stopped
    expected, state, _ = undisturbed
    assert identical(timeless(records), expected)
    assert identical(whole_state(last), state)
    assert all(folders.step_of(path) is None for path in folders.newest_first(folder))


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_resumes_in_every_phase(
    method: str, undisturbed: Callable, tiny_trainer: Make, tmp_path: Path, identical: Callable
) -> None:
    """Before the first step of an epoch, in its middle, before its last step and after it."""
    changes = {"method": method, "keep": "last"}
    expected = undisturbed(**changes)
    moments = [
        (epoch, step)
        for epoch, total in enumerate(expected[2], start=1)
        for step in (0, total // 2, total - 1, total)
        if epoch in (WARMUP, MAIN) or (epoch > MAIN and step == total // 2)
    ]
    assert len(moments) == 9
    make = lambda: tiny_trainer(**STEPS, **changes)  # noqa: E731
    assert_equals_undisturbed(make, tmp_path, moments, expected, identical)


#: settings with a state of their own: thresholds, weights, views, averages
SWITCHES: dict[str, dict[str, Any]] = {
    "thresholds": {"method": "dicap", "keep": "best"},
    "weights": {"method": "bbam", "pseudo_labels": "midrange", "pseudo_label_weight": "measured"},
    "views": {"warmup_views": "both", "warmup_passes": 2, "warmup_batch": 12},
    "averages": {"ema_restart": "averaged", "ema_warmup": False, "cycle_momentum": True},
    "first negatives": {"labeled_negatives": "first", "shuffle": False},
}


def moments_of(steps: list[int]) -> list[tuple[int, int]]:
    """Two in the same epoch of the warm-up, two in the first of the main phase, one in the last."""
    return [
        *((WARMUP, 1), (WARMUP, steps[WARMUP - 1] - 1)),
        *((MAIN, 1), (MAIN, 2)),
        (MAIN + 1, steps[MAIN] - 1),
    ]


@pytest.mark.parametrize("name", SWITCHES)
def test_a_run_resumes_that_stops_again_and_again(
    name: str, undisturbed: Callable, tiny_trainer: Make, tmp_path: Path, identical: Callable
) -> None:
    changes = SWITCHES[name]
    expected = undisturbed(**changes)
    make = lambda: tiny_trainer(**STEPS, **changes)  # noqa: E731
    assert_equals_undisturbed(make, tmp_path, moments_of(expected[2]), expected, identical)


@pytest.mark.parametrize("ahead", [False, True], ids=["in the step", "in a thread"])
def test_samples_of_steps_before_the_stop_are_not_read_again(
    ahead: bool,
    undisturbed: Callable,
    tiny_trainer: Make,
    tmp_path: Path,
    identical: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    read_rows, begin = minibatches.read_rows, minibatches.EpochSteps.__init__

    def counted(inputs: Any, rows: Any) -> Any:
        read.extend(rows.tolist())
        return read_rows(inputs, rows)

    def with_ahead(steps: Any, *arguments: Any, **options: Any) -> None:
        begin(steps, *arguments, **options, ahead=ahead)

    monkeypatch.setattr(minibatches, "read_rows", counted)
    monkeypatch.setattr(minibatches.EpochSteps, "__init__", with_ahead)
    expected = undisturbed(keep="last")
    changes, epoch = {**STEPS, "keep": "last", "stop_epoch": MAIN}, MAIN
    trainer = tiny_trainer(**changes)
    _, stopped = train(trainer, tmp_path, (epoch, expected[2][epoch - 1] - 2))
    assert stopped
    read.clear()
    records, stopped = train(tiny_trainer(**changes), tmp_path)
    assert not stopped and 0 < len(read) <= 2 * 2 * 8  # two steps of both pools
    assert identical(timeless(records), expected[0][:epoch])


def test_nothing_is_saved_before_the_first_step_of_a_run(
    tiny_trainer: Make, tmp_path: Path
) -> None:
    session = LocalSession(tmp_path, lambda record, again: None, requested=lambda: True)
    with pytest.raises(TrainingStoppedError):
        next(run_epochs(tiny_trainer(), session))
    assert list(tmp_path.iterdir()) == []


def test_a_request_between_two_epochs_saves_the_end_of_an_epoch(
    tiny_trainer: Make, tmp_path: Path
) -> None:
    requests: list[bool] = []
    trainer = tiny_trainer()
    session = LocalSession(
        tmp_path, lambda record, again: None, every=3, requested=lambda: bool(requests)
    )
    epochs = run_epochs(trainer, session)
    next(epochs)
    assert list(folders.newest_first(tmp_path)) == []
    requests.append(True)
    with pytest.raises(TrainingStoppedError):
        next(epochs)
    (checkpoint,) = folders.newest_first(tmp_path)
    assert (folders.epoch_of(checkpoint), folders.step_of(checkpoint)) == (1, None)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_request_does_not_wait_for_a_disk_that_is_not_writable(
    attempts: int, tiny_trainer: Make, tmp_path: Path
) -> None:
    """Also if it comes while the end of an epoch already waits for room."""
    (no_folder := tmp_path / "file").write_text("")
    records: list[EpochRecord] = []
    asked: list[bool] = []

    def requested() -> bool:
        if records:  # the first epoch has ended
            asked.append(True)
        return len(asked) >= attempts

    session = LocalSession(
        no_folder, lambda record, again: records.append(record), requested=requested
    )
    with pytest.raises(StorageError, match="--resume"):
        next(run_epochs(tiny_trainer(), session))
    assert len(records) == 1 and len(asked) == attempts


def test_a_checkpoint_in_an_epoch_is_newer_than_the_epoch_before_and_older_than_its_end(
    tmp_path: Path,
) -> None:
    names = [
        folders.folder_name(epoch, step)
        for epoch, step in ((0, 0), (0, 7), (1, None), (1, 0), (1, 12), (1, 100), (2, None))
    ]
    for name in sorted(names):
        (tmp_path / name).mkdir()
    assert [path.name for path in folders.newest_first(tmp_path)] == names[::-1]
    assert names[1:3] == ["epoch-00000-step-00007", "epoch-00001"]
    folders.tidy(tmp_path, 1, best_epoch=1)
    assert [path.name for path in folders.newest_first(tmp_path)] == [names[-1], names[2]]
    (tmp_path / folders.folder_name(2, 3)).mkdir()
    folders.tidy(tmp_path, 1, best_epoch=2)
    left = [path.name for path in folders.newest_first(tmp_path)]
    assert left == ["epoch-00002-step-00003", "epoch-00002"]


def test_a_damaged_checkpoint_in_an_epoch_costs_that_epoch_only(
    undisturbed: Callable, tiny_trainer: Make, tmp_path: Path, identical: Callable
) -> None:
    make = lambda: tiny_trainer(**STEPS)  # noqa: E731
    assert train(make(), tmp_path, (MAIN, 2))[1]
    newest = next(folders.newest_first(tmp_path))
    state = newest / folders.STATE
    state.write_bytes(state.read_bytes()[:100])
    last = make()
    records, _ = train(last, tmp_path)
    assert not newest.exists()
    expected, state_at_end, _ = undisturbed()
    assert identical(timeless(records), expected)
    assert identical(whole_state(last), state_at_end)


def test_dropout_continues_with_the_same_numbers(
    text_trainer: Make, tiny_bert: Path, tmp_path: Path, identical: Callable
) -> None:
    make = lambda: text_trainer(  # noqa: E731
        backbone="transformer",
        weights=str(tiny_bert),
        epochs=3,
        warmup_epochs=2,
        keep="last",
        **STEPS,
    )
    whole = make()
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in whole.model.modules())
    records, _ = train(whole, tmp_path / "whole")
    expected = timeless(records), whole_state(whole), []
    moments = [(WARMUP, 1), (MAIN, 2)]
    assert_equals_undisturbed(make, tmp_path / "stopped", moments, expected, identical)
