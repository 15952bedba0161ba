"""Lines and remaining time of a study: epochs of an earlier run are no work of this one."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from bbam_ray.commands.study_progress import StudyProgress
from bbam_ray.scale.study.events import EpochDone, TrialEnded, TrialStarted

EPOCHS, FOLDS, TRIALS, AFTER_SEARCH = 10, 2, 3, 1


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> StudyProgress:
    """Of a study that started a minute ago, and of which no trial is done."""
    plan: Any = SimpleNamespace(
        space=SimpleNamespace(metric="val_map", mode="max"),
        published_config=SimpleNamespace(training=SimpleNamespace(epochs=EPOCHS)),
        folds=FOLDS,
        num_samples=TRIALS,
        confirmations=0,
        runs_after_search=AFTER_SEARCH,
    )
    progress = StudyProgress(plan, 0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    return progress


def epochs(progress: StudyProgress, first: int, last: int, *, again: bool) -> None:
    for epoch in range(first, last + 1):
        fold, number = divmod(epoch - 1, EPOCHS)
        row = {"fold": fold, "epoch": number + 1, "val_map": 0.5}
        progress.update(EpochDone(0, row, again))


@pytest.mark.parametrize("again", [0, 5, 13])
def test_the_time_of_an_epoch_counts_epochs_of_this_run_only(
    again: int, progress: StudyProgress
) -> None:
    progress.update(TrialStarted(0, {}))
    epochs(progress, 1, again, again=True)
    assert progress.seconds_left is None
    epochs(progress, again + 1, again + 4, again=False)
    left = TRIALS * FOLDS * EPOCHS + AFTER_SEARCH * EPOCHS - again - 4
    assert progress.seconds_left == pytest.approx(60 / 4 * left, rel=0.01)
    assert progress.trials[0]["epochs"] == again + 4


def test_an_epoch_that_a_restarted_trial_repeats_counts_once(progress: StudyProgress) -> None:
    progress.update(TrialStarted(0, {}))
    epochs(progress, 1, 3, again=False)
    before = progress.seconds_left
    epochs(progress, 1, 3, again=True)
    assert progress.seconds_left == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize(
    ("state", "folds", "words"),
    [("PRUNED", 1, "1 of 2 folds, 10 epochs"), ("COMPLETE", 2, "0.5000  2 folds, 10 epochs")],
)
def test_the_line_of_a_pruned_trial_says_how_many_folds_its_value_has(
    state: str, folds: int, words: str, progress: StudyProgress
) -> None:
    row = {"number": 0, "state": state, "val_map": 0.5, "folds": folds, "epochs": EPOCHS}
    progress.update(TrialStarted(0, {}))
    line = progress.update(TrialEnded(0, row | {"duration_s": 3.0}))
    assert line is not None and words in line
