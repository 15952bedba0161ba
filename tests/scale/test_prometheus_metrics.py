"""Which series a study gives to Prometheus: its own always, those of trials up to a number."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

from bbam_ray.scale.study import prometheus as metrics
from bbam_ray.scale.study.events import EpochDone, Event, TrialEnded, TrialStarted

Series = dict[str, dict[tuple[Any, ...], float]]


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> Series:
    """By name and tags, as Ray would keep them."""
    kept: Series = defaultdict(dict)

    class Gauge:
        def __init__(self, name: str, text: str, tags: tuple[str, ...]) -> None:
            self._name, self._tags = name, set(tags)

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert set(tags) == self._tags
            kept[self._name][tuple(tags.values())] = value

    monkeypatch.setattr(metrics, "Gauge", Gauge)
    return kept


@pytest.fixture
def listener(series: Series, monkeypatch: pytest.MonkeyPatch) -> metrics.StudyMetrics:
    """Of a study in which three trials have series of their own."""
    monkeypatch.setattr(metrics, "SHOWN_TRIALS", 3)
    plan: Any = SimpleNamespace(space=SimpleNamespace(metric="val_map", mode="max"))
    events: list[Event] = []
    listener = metrics.StudyMetrics(plan, "s", [], events.append)
    listener.events = events  # type: ignore[attr-defined]
    return listener


def epoch(number: int) -> EpochDone:
    row = {"epoch": 1, "val_map": number / 10, "loss": None, "seconds_train": 2.0}
    return EpochDone(number, row)


def end(number: int) -> TrialEnded:
    return TrialEnded(number, {"state": "COMPLETE", "gpu_hours": 0.5, "val_map": number / 10})


def test_a_long_study_does_not_make_series_without_end(
    series: Series, listener: metrics.StudyMetrics
) -> None:
    for number in range(5):
        for event in (TrialStarted(number, {}), epoch(number), end(number)):
            listener(event)
    assert len(listener.events) == 15  # type: ignore[attr-defined]  # the next listener gets every event
    shown = {*(f"t{number:05d}" for number in range(3)), "slot-0"}
    for name in ("bbam_epoch", "bbam_val_map", "bbam_phase_seconds", "bbam_trial_running"):
        assert {tags[1] for tags in series[name]} == shown, name
    assert series["bbam_val_map"][("s", "slot-0", "0")] == 0.4
    assert set(series["bbam_trial_running"].values()) == {0}  # none seems to run for ever
    assert "bbam_loss" not in series
    assert series["bbam_trials"][("s", "COMPLETE")] == 5
    assert series["bbam_best"][("s",)] == 0.4
    assert series["bbam_gpu_hours"][("s",)] == 2.5


def test_later_trials_share_as_many_series_as_run_at_once(
    series: Series, listener: metrics.StudyMetrics
) -> None:
    for number in range(3):
        listener(TrialStarted(number, {}))
    for number in range(3):
        listener(end(number))
    for number in range(3, 30):  # two at once; the one that started earlier ends first
        listener(TrialStarted(number, {}))
        listener(epoch(number))
        if number > 3:
            listener(end(number - 1))
    assert {tags[1] for tags in series["bbam_val_map"]} == {"slot-0", "slot-1"}
    running = {tags[1] for tags, value in series["bbam_trial_running"].items() if value}
    assert running == {"slot-0"} or running == {"slot-1"}


def test_a_trial_that_starts_again_is_counted_once(
    series: Series, listener: metrics.StudyMetrics
) -> None:
    for number in range(4):
        for event in (TrialStarted(number, {}), epoch(number), TrialStarted(number, {})):
            listener(event)
    assert series["bbam_trials"][("s", "RUNNING")] == 4
    assert {tags[1] for tags in series["bbam_epoch"]} == {"t00000", "t00001", "t00002", "slot-0"}
    for number in range(4):
        listener(end(number))
    assert series["bbam_trials"][("s", "RUNNING")] == 0


def test_a_trial_whose_worker_cannot_start_is_counted_without_series(
    series: Series, listener: metrics.StudyMetrics
) -> None:
    listener(TrialEnded(0, {"state": "FAILED", "gpu_hours": 0.0, "val_map": None}))
    assert series["bbam_trials"][("s", "FAILED")] == 1
    assert series["bbam_trials"].get(("s", "RUNNING"), 0) == 0
    assert "bbam_trial_running" not in series
    listener(TrialStarted(1, {}))
    assert series["bbam_trial_running"] == {("s", "t00001", "0"): 1}
