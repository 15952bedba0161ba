"""A confirmation in which trainings fail: it says so in its rows, and measures the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.commands.search_rules import SearchRules
from bbam_ray.commands.study_record import open_study
from bbam_ray.commands.study_setup import TuneOptions, prepare
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale.search.outcomes import trial_id
from bbam_ray.scale.study import confirm
from bbam_ray.scale.study.confirm import Confirmation
from bbam_ray.scale.study.events import Event, Notice
from bbam_ray.scale.study.jobs import Job, JobResult
from bbam_ray.scale.study.start_failures import StartFailures
from bbam_ray.scale.workers.shapes import WorkerRequest
from bbam_ray.scale.workers.trial_worker import TrialWorker

SETTINGS = {
    "dataset": "digits",
    "method": "bbam",
    "seed": 0,
    "scenes": 120,
    "test_scenes": 40,
    "labeled_fraction": 0.3,
    "epochs": 2,
    "warmup_epochs": 1,
    "warmup_passes": 1,
    "hidden_dim": 16,
    "feature_dim": 8,
}
Failing = Callable[[Job], bool]


def run_here(failing: Failing) -> Callable[..., None]:
    """Runs jobs in this process instead of Ray; some fail as they do when memory is short."""

    def run(
        plan: Any,
        study: str,
        jobs: Sequence[Job],
        monitor: Any,
        done: Callable[[Job, JobResult], None],
        started: Callable[[Job], None],
    ) -> None:
        for job in jobs:
            started(job)
            now = datetime.now(UTC)
            if failing(job):
                done(job, JobResult(None, "OutOfMemoryError: out of memory", now, 1.0))
            else:
                value = getattr(TrialWorker(), job.method)(*job.arguments, 1)
                done(job, JobResult(value, None, now, 1.0))

    return run


def trial(number: int) -> Row:
    return {
        "study": "study",
        "trial_id": trial_id(number),
        "number": number,
        "kept": "last",
        "epochs": 4,
        "best_epoch": 2,
        "param_margin": 0.4 - 0.1 * number,
    }


@pytest.fixture
def confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Failing], tuple[dict[str, Row], dict[str, Any], list[str]]]:
    """Rows by answer, the record and the notices of a confirmation: trial 1 is chosen, trial 2 is best."""

    def run(failing: Failing) -> tuple[dict[str, Row], dict[str, Any], list[str]]:
        shape = WorkerRequest(1, 1, cpus=1, gpus=0.0, timeout_s=60.0, max_failures=0)
        rules = SearchRules(folds=2, final="best", confirm_seeds=1, num_samples=3)
        options = TuneOptions(settings=SETTINGS, shape=shape, rules=rules, results=tmp_path)
        study = prepare(options)
        record, plan = open_study(
            study.folder, study.plan, study.space_path, study.split, resume=False
        )
        store = StudyStore(record.folder, plan.space.kinds)
        monkeypatch.setattr(confirm, "run_jobs", run_here(failing))
        events: list[Event] = []
        failures = StartFailures(events.append, plan.max_failures)
        confirmation = Confirmation(plan, store, record, None, failures, events.append)  # type: ignore[arg-type]
        confirmation.run(trial(1), [trial(2), trial(1), trial(0)])
        rows = {row["answer"]: row for row in store.confirm.rows()}
        notices = [event.text for event in events if isinstance(event, Notice)]
        return rows, record.content, notices

    return run


def fold_of(number: int) -> Failing:
    return lambda job: job.method == "train_fold" and trial_id(number) in job.name


def test_without_failures_every_answer_is_measured(confirmed: Callable[..., Any]) -> None:
    rows, content, notices = confirmed(lambda job: False)
    assert set(rows) == {"final", "published", "logistic", "propagation", "logistic+propagation"}
    assert all(row["test_map"] > 0 and row["error"] is None for row in rows.values())
    assert content["final"]["trial"] == trial_id(1)
    assert {trial_id(1), trial_id(2)} <= set(content["final"]["members"])
    assert not [text for text in notices if "without" in text]


def test_a_best_trial_that_cannot_be_trained_is_left_out_and_named(
    confirmed: Callable[..., Any],
) -> None:
    rows, content, notices = confirmed(fold_of(2))
    assert trial_id(2) not in content["final"]["members"]
    assert rows["final"]["test_map"] > 0
    (text,) = [text for text in notices if "without" in text]
    assert trial_id(2) in text and "OutOfMemoryError" in text


def test_a_chosen_trial_that_cannot_be_trained_has_the_reason_in_its_row(
    confirmed: Callable[..., Any],
) -> None:
    rows, content, _ = confirmed(fold_of(1))
    assert rows["final"]["test_map"] is None
    assert "OutOfMemoryError" in rows["final"]["error"]
    assert "final" not in content
    for answer in ("published", "logistic", "propagation"):
        assert rows[answer]["test_map"] > 0


def test_a_baseline_that_cannot_be_fitted_has_the_reason_in_its_row(
    confirmed: Callable[..., Any],
) -> None:
    rows, content, _ = confirmed(lambda job: job.name == "baseline propagation")
    assert "OutOfMemoryError" in rows["propagation"]["error"]
    assert "propagation" not in content["final"]["members"]
    assert rows["final"]["test_map"] > 0 and rows["logistic"]["test_map"] > 0


def test_a_model_of_all_labelled_samples_that_cannot_be_trained_fails_the_final_answer_alone(
    confirmed: Callable[..., Any],
) -> None:
    rows, _, _ = confirmed(lambda job: job.method == "train_full" and "full-1" in job.name)
    assert "OutOfMemoryError" in rows["final"]["error"]
    assert rows["published"]["test_map"] > 0


def test_models_of_all_labelled_samples_get_the_out_of_fold_scores(
    confirmed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "pseudo_label_weight", "measured")
    scores = []

    def noted(job: Job) -> bool:
        if job.method in ("train_full", "confirm"):
            scores.append(job.arguments[-1])
        return False

    rows, _, _ = confirmed(noted)
    labeled = rows["published"]["n_labeled"]
    assert rows["published"]["held_out"] == labeled
    assert len(scores) == 7  # three models of each of two trials, and the published settings
    for logits, labels in scores:
        assert len(logits) == len(labels) == labeled
