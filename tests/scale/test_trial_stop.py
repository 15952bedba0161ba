"""A process of a trial that stops in an epoch, continues, and resumes from its checkpoint elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.engine.pruning_rule import TrialRules
from bbam_ray.engine.stop_request import StopRequest
from bbam_ray.errors import TrainingStoppedError
from bbam_ray.scale.workers.stop_notices import StopNotices
from bbam_ray.scale.workers.trial_worker import TrialWorker

SETTINGS = {
    "dataset": "digits",
    "scenes": 200,
    "test_scenes": 40,
    "labeled_fraction": 0.4,
    "epochs": 3,
    "warmup_epochs": 1,
    "warmup_passes": 1,
    "hidden_dim": 16,
    "feature_dim": 8,
    "labeled_batch": 12,
    "unlabeled_batch": 16,
    "device": "cpu",
    "keep": "last",
    "folds": 2,
}
EPOCHS = 6  # of both folds


def new_worker() -> TrialWorker:
    worker = TrialWorker()
    worker.build(dict(SETTINGS), "test", 1, TrialRules())
    return worker


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    """A result of ``run_epoch`` without times; of a fold's result its metrics only."""
    record, clock = asdict(result["record"]), ("seconds_", "images_per_second")
    scalars = {n: v for n, v in record["scalars"].items() if not n.startswith(clock)}
    logits = None
    if result["fold_result"] is not None:
        logits = {n: w.logits.tolist() for n, w in result["fold_result"].weights.items()}
    rest = {n: v for n, v in result.items() if n not in ("record", "fold_result")}
    return rest | {"scalars": scalars, "labels": record["labels"], "logits": logits}


def run_on(worker: TrialWorker) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    while not results or not results[-1]["finished"]:
        results.append(timeless(worker.run_epoch()))
    return results


@pytest.fixture(scope="module")
def whole() -> list[dict[str, Any]]:
    return run_on(new_worker())


class Notice(StopNotices):
    """A notice that comes before a step of an epoch, counted over both folds, instead of Ray's."""

    def __init__(self, worker: TrialWorker, epoch: int, step: int) -> None:
        self._worker, self._moment = worker, (epoch, step)
        self._request, self._sent = StopRequest(), False

    def __call__(self) -> bool:
        done, step = self._worker.position()
        if not self._sent and (done - 1, step) == self._moment:  # a running epoch counts as done
            self._sent = True
            self._request.make()
        return super().__call__()


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_a_trial_continues_after_its_checkpoint_and_resumes_from_it(
    epoch: int, whole: list[dict[str, Any]], tmp_path: Path, identical: Callable
) -> None:
    """In the warm-up, the main phase, and the second fold."""
    worker, results = new_worker(), []
    worker._watch = Notice(worker, epoch, 2)
    worker._start(None)
    stops = 0
    while not results or not results[-1]["finished"]:
        try:
            results.append(timeless(worker.run_epoch()))
        except TrainingStoppedError:
            stops += 1
            assert worker.position() == (epoch, 2) and len(results) == epoch
            worker.save(tmp_path)
    assert stops == 1 and len(results) == EPOCHS
    assert identical(results, whole)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    elsewhere = new_worker()
    elsewhere.restore(files)
    again = [(fold, record.scalars["epoch"]) for fold, record in elsewhere.restored_epochs]
    assert again == [(result["fold"], result["epoch"]) for result in whole[:epoch]]
    labels = [record.labels for _, record in elsewhere.restored_epochs]
    assert identical(labels, [result["labels"] for result in whole[:epoch]])
    assert identical(run_on(elsewhere), whole[epoch:])
