"""Metrics of a running study for Prometheus, through Ray's own metrics: a gauge for each value of the
history.

Ray puts ``ray_`` before every name. ``launch/monitoring`` has the dashboard and the alerts that use them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

from ray.util.metrics import Gauge

from bbam_ray.results.schemas import TrialState
from bbam_ray.results.store import Row
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.study.events import (
    ConfirmEnded,
    EpochDone,
    Event,
    Listener,
    TrialEnded,
    TrialStarted,
)
from bbam_ray.scale.study.plan import StudyPlan

_STUDY, _TRIAL = ("study",), ("study", "trial", "worker")
PHASES = ("refresh", "train", "evaluate", "input", "communicate")
#: gauge of a trial -> its column in the history, description
TRIAL_GAUGES = {
    "bbam_epoch": ("epoch", "epochs done"),
    "bbam_images_per_second": ("images_per_second", "samples trained on in a second, all workers"),
    "bbam_val_map": ("val_map", "mAP on validation data"),
    "bbam_loss": ("loss", "mean loss of the epoch"),
    "bbam_pseudo_positives": ("pseudo_positives", "confident pseudo-positives a sample"),
    "bbam_pseudo_confident": ("pseudo_confident", "share of pseudo-labels that are confident"),
    "bbam_pseudo_precision": ("pseudo_precision", "precision of pseudo-positives (hidden labels)"),
    "bbam_vdfd_mean": ("vdfd_mean", "variance bias of the angles, mean over labels, rad^2"),
    "bbam_gpu_memory_bytes": ("gpu_memory", "peak of allocated GPU memory; 0 on a CPU"),
}
#: Trials of a run with series of their own; further ones share a series for each slot, ``slot-0`` and so
#: on. A series is never freed, neither in Ray's processes (a trial takes about 0.1 MB of the driver) nor
#: in Prometheus, and a panel with more curves cannot be read.
SHOWN_TRIALS = 100
STUDY_GAUGES = {
    "bbam_best": "best value of the objective so far",
    "bbam_gpu_hours": "GPU-hours of ended trials",
    "bbam_confirmations": "runs of the confirmation that have ended",
}


class StudyMetrics:
    """A listener that sets Ray's metrics and passes every event on.

    Args:
        plan: of the study.
        study: its name.
        rows: of trials that ended before.
        listener: the next one.
    """

    def __init__(self, plan: StudyPlan, study: str, rows: list[Row], listener: Listener) -> None:
        self._plan, self._study, self._next = plan, study, listener
        self._trial = {n: Gauge(n, text, _TRIAL) for n, (_, text) in TRIAL_GAUGES.items()}
        self._of_study = {n: Gauge(n, text, _STUDY) for n, text in STUDY_GAUGES.items()}
        self._phase = Gauge("bbam_phase_seconds", "seconds of the epoch", (*_TRIAL, "phase"))
        self._running = Gauge("bbam_trial_running", "1 while the trial trains, then 0", _TRIAL)
        self._heard = Gauge(
            "bbam_last_epoch_timestamp_seconds",
            "when its last epoch ended, or the trial started",
            _TRIAL,
        )
        self._trials = Gauge("bbam_trials", "trials by state", ("study", "state"))
        self._states: Counter[str] = Counter()
        self._labels: dict[int, str] = {}  # of the series of each running trial
        self._own = 0  # trials with series of their own
        self._hours = self._confirmed = 0.0
        self._best: float | None = None
        for row in rows:
            self._count(row)
        self._show_study()

    def __call__(self, event: Event) -> None:
        """Set the gauges that an event changes, and pass the event on."""
        match event:
            case TrialStarted(number):
                if number not in self._labels:  # else it starts again after the loss of a worker
                    self._labels[number] = self._new_label(number)
                    self._states["RUNNING"] += 1
                self._set_running(number, 1)
            case EpochDone(number, row):
                self._set_epoch(number, row)
            case TrialEnded(number, row):
                if number in self._labels:  # else its worker could not start
                    self._set_running(number, 0)
                    del self._labels[number]
                    self._states["RUNNING"] -= 1
                self._count(row)
            case ConfirmEnded():
                self._confirmed += 1
        self._show_study()
        self._next(event)

    def _new_label(self, number: int) -> str:
        """The label of a trial that starts: its ID, or a slot that no running trial has."""
        if self._own < SHOWN_TRIALS:
            self._own += 1
            return trial_id(number)
        taken = set(self._labels.values())
        return next(label for slot in count() if (label := f"slot-{slot}") not in taken)

    def _tags(self, number: int) -> dict[str, str]:
        # Rank 0 reports for all: workers run in step, and the values are those of all of them.
        return {"study": self._study, "trial": self._labels[number], "worker": "0"}

    def _set_running(self, number: int, running: int) -> None:
        tags = self._tags(number)
        self._running.set(running, tags)
        if running:
            self._heard.set(time.time(), tags)

    def _set_epoch(self, number: int, row: Mapping[str, Any]) -> None:
        tags = self._tags(number)
        self._heard.set(time.time(), tags)
        values = {"gpu_memory": 0, **{name: v for name, v in row.items() if v is not None}}
        for name, (column, _) in TRIAL_GAUGES.items():
            if (value := values.get(column)) is not None:
                self._trial[name].set(float(value), tags)
        for phase in PHASES:
            if (value := row.get(f"seconds_{phase}")) is not None:
                self._phase.set(float(value), {**tags, "phase": phase})

    def _count(self, row: Mapping[str, Any]) -> None:
        """Add an ended trial to the counts."""
        self._states[row["state"]] += 1
        self._hours += row["gpu_hours"] or 0.0
        value = row.get(self._plan.space.metric)
        if row["state"] == TrialState.COMPLETE and value is not None:
            better = max if self._plan.space.mode == "max" else min
            self._best = value if self._best is None else better(self._best, value)

    def _show_study(self) -> None:
        tags = {"study": self._study}
        for state, trials in self._states.items():
            self._trials.set(trials, {**tags, "state": state})
        self._of_study["bbam_gpu_hours"].set(self._hours, tags)
        self._of_study["bbam_confirmations"].set(self._confirmed, tags)
        if self._best is not None:
            self._of_study["bbam_best"].set(self._best, tags)
