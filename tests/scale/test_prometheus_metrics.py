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


def test_a_long_study_does_not_make_series_without_end(
    series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SHOWN_TRIALS", 3)
    events: list[Event] = []
    plan: Any = SimpleNamespace(space=SimpleNamespace(metric="val_map", mode="max"))
    listener = metrics.StudyMetrics(plan, "s", [], events.append)
    row = {"epoch": 1, "val_map": 0.5, "loss": None, "seconds_train": 2.0}
    ended = {"state": "COMPLETE", "gpu_hours": 0.5, "val_map": 0.5}
    for number in range(5):
        listener(TrialStarted(number, {}))
        listener(EpochDone(number, {**row, "val_map": number / 10}))
        listener(TrialEnded(number, {**ended, "val_map": number / 10}))
    assert len(events) == 15  # the next listener gets every event
    shown = {f"t{number:05d}" for number in range(3)}
    for name in ("bbam_epoch", "bbam_val_map", "bbam_phase_seconds", "bbam_trial_running"):
        assert {tags[1] for tags in series[name]} == shown, name
    assert set(series["bbam_trial_running"].values()) == {0}  # none seems to run for ever
    assert "bbam_loss" not in series
    assert series["bbam_trials"][("s", "COMPLETE")] == 5
    assert series["bbam_best"][("s",)] == 0.4
    assert series["bbam_gpu_hours"][("s",)] == 2.5
