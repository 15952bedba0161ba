"""A study: search with Ray Tune and Optuna, then confirm the best over seeds."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import Enum
from functools import partial
from statistics import fmean, stdev
from typing import Any

from ray import tune

from bbam_ray.engine.stop_request import StopRequest, made_by_signal
from bbam_ray.errors import StorageError
from bbam_ray.results import schemas
from bbam_ray.results.fold_rows import stored_phase
from bbam_ray.results.store import Row, StudyStore, was_not_started
from bbam_ray.results.study import COMPLETE, FAILED, INTERRUPTED, StudyRecord
from bbam_ray.results.summary import gains
from bbam_ray.scale.cluster.connection import driver_resources
from bbam_ray.scale.cluster.scratch import Scratch
from bbam_ray.scale.private_api import no_snapshots
from bbam_ray.scale.search.choice import choose
from bbam_ray.scale.search.outcomes import Outcome, parameters_of, ranked, stored_outcomes, trial_id
from bbam_ray.scale.search.pareto import ParetoSet
from bbam_ray.scale.search.sequence import ConfigSequence
from bbam_ray.scale.search.study_db import StudyDatabase
from bbam_ray.scale.study.bags import stop_epoch
from bbam_ray.scale.study.budget import Budget, Use
from bbam_ray.scale.study.confirm import FOLD_GPU_HOURS, Confirmation
from bbam_ray.scale.study.events import Listener, NothingReused, SearchStarted
from bbam_ray.scale.study.fold_store import FoldStore, paired_error
from bbam_ray.scale.study.plan import StudyPlan, StudyResult
from bbam_ray.scale.study.prometheus import StudyMetrics
from bbam_ray.scale.study.recorder import Recorder
from bbam_ray.scale.study.start_failures import StartFailures
from bbam_ray.scale.study.trackers import tracking_callbacks
from bbam_ray.scale.study.trial_cache import TrialCache
from bbam_ray.scale.study.tune_searcher import StudySearcher
from bbam_ray.scale.study.watchdog import Watchdog
from bbam_ray.scale.study.writer import StudyWriter
from bbam_ray.scale.workers.heartbeat import HeartbeatMonitor
from bbam_ray.scale.workers.train_trial import train_trial
from bbam_ray.scale.workers.trial import Trial
from bbam_ray.scale.workers.trial_checkpoints import collect
from bbam_ray.scale.workers.versions import versions


class _SearchEnd(Enum):
    """Why a search has ended."""

    last_trial, budget, cannot_start = range(3)


_UNFINISHED = "unfinished_gpu_hours"  # in study.json: used by trials that were cut off


def run_study(
    plan: StudyPlan, record: StudyRecord, listener: Listener, trainable: Any = Trial
) -> StudyResult:
    """Run or resume a study inside a connected Ray; the store is complete at every moment.

    Args:
        plan: of the study.
        record: of the study's folder, which holds the rows of an earlier run, if any.
        listener: gets every event.
        trainable: what Tune runs for a trial of a gang.

    Raises:
        KeyboardInterrupt: after all results so far have been written.
    """
    space = plan.space
    store = StudyStore(record.folder, space.kinds)
    store.drop_not_started()
    store.drop_unfinished()
    store.flush(whole=True)
    outcomes = stored_outcomes(store, plan.space)
    listener = StudyMetrics(plan, record.folder.name, store.trials.rows(), listener)
    failures = StartFailures(listener, plan.max_failures)
    with StudyDatabase(record.folder, space) as database:
        close = partial(_close, plan, store, database, outcomes, record)
        try:
            end = _search(plan, store, database, outcomes, record, failures, listener, trainable)
            chosen = chosen_trial(plan, store)
            if chosen and plan.confirm_top and plan.confirm_seeds:
                order = ranked(store.trials.rows(), plan.space)
                with HeartbeatMonitor(plan.shape.timeout_s) as monitor:
                    confirmation = Confirmation(plan, store, record, monitor, failures, listener)
                    confirmation.run(chosen, order)
        except StorageError:  # nothing more can be written
            raise
        except KeyboardInterrupt:
            close(INTERRUPTED)
            raise
        except BaseException:
            close(FAILED)
            raise
        return replace(
            close(COMPLETE),
            out_of_budget=end is _SearchEnd.budget,
            cannot_start=end is _SearchEnd.cannot_start,
        )


def stored_result(plan: StudyPlan, record: StudyRecord) -> StudyResult:
    """The result of a study as stored in its folder at this moment."""
    store = StudyStore(record.folder, plan.space.kinds)
    trials = store.trials.rows()
    status = record.content["status"]
    return StudyResult(status, trials, store.confirm.rows(), chosen_trial(plan, store))


def chosen_trial(plan: StudyPlan, store: StudyStore) -> Row | None:
    """The trial that the search chooses by validation scores; None if none is complete."""
    trials = store.trials.rows()
    outcomes = stored_outcomes(store, plan.space)
    phases = {row["number"]: stored_phase(row) for row in trials}
    return choose(trials, outcomes, plan.space, paired_error(FoldStore(store), phases))


def _close(
    plan: StudyPlan,
    store: StudyStore,
    database: StudyDatabase,
    outcomes: dict[int, Outcome],
    record: StudyRecord,
    status: str,
) -> StudyResult:
    """Write everything that a reader of the folder needs; `status` is that of the search."""
    store.finish()
    store.patience.insist(lambda: database.write(outcomes, complete=True))
    chosen = chosen_trial(plan, store)
    if chosen:
        _write_best(plan, store, chosen)
    record.update(chosen=chosen["number"] if chosen else None, gain=gains(store.confirm.rows()))
    record.end(FAILED if status == COMPLETE and not chosen else status)
    return stored_result(plan, record)


def _used_before(store: StudyStore, record: StudyRecord) -> Use:
    """What earlier runs have used: rows of the store, and the record for trials that did not end."""

    def hours(rows: Iterable[Row]) -> float:
        return sum(row["gpu_hours"] or 0.0 for row in rows)

    trained = [row for row in store.trials.rows() if not row["answered_by"]]
    complete = [row for row in trained if row["state"] == schemas.COMPLETE]
    total = hours(trained) + hours(store.confirm.rows()) + record.content.get(_UNFINISHED, 0.0)
    total += record.content.get(FOLD_GPU_HOURS, 0.0)
    return Use(total, len(complete), hours(complete))


def _search(
    plan: StudyPlan,
    store: StudyStore,
    database: StudyDatabase,
    outcomes: dict[int, Outcome],
    record: StudyRecord,
    failures: StartFailures,
    listener: Listener,
    trainable: Any,
) -> _SearchEnd:
    """Run the trials that are left."""
    left = plan.num_samples - sum(number < plan.num_samples for number in outcomes)
    if left <= 0:
        return _SearchEnd.last_trial
    sequence = ConfigSequence(
        plan.space,
        plan.settings["seed"],
        plan.lag,
        outcomes.values(),
        sampler=plan.sampler,
        prior=plan.prior,
    )
    sequence.outcomes = outcomes  # shared: the recorder adds to it as trials end
    # In units of a whole trial, of which the budget knows the mean.
    later_trials = -(-plan.runs_after_search // plan.folds)
    budget = Budget(plan.limits, plan.gpus, _used_before(store, record), later_trials)
    monitor = HeartbeatMonitor(plan.shape.timeout_s)
    searcher = StudySearcher(
        sequence,
        plan.num_samples,
        plan.concurrency,
        plan.stopping,
        may_start=budget.may_start,
        with_models=plan.with_models,
    )
    pareto_set = ParetoSet(store, plan.space)
    trial_cache = TrialCache(plan, store, pareto_set)
    writer = StudyWriter(store, database, outcomes)
    recorder = Recorder(
        plan, store, searcher, trial_cache, pareto_set, writer, budget, failures, listener
    )
    searcher.use_lookup(recorder.lookup)
    searcher.use_fingerprint(trial_cache.fingerprint)
    all_checkpoints = store.folder.absolute() / "checkpoints" / "trials"
    checkpoints = all_checkpoints / uuid.uuid4().hex[:8]
    collect(all_checkpoints, checkpoints.name)
    run: Row = {
        "study": store.folder.name,
        "settings": plan.settings,
        "shape": asdict(plan.shape),
        "heartbeats": monitor.heartbeats,
        "versions": versions(plan.published_config),
        "checkpoints": str(checkpoints),
    }
    if plan.train_shape is not None:
        run["train_shape"] = asdict(plan.train_shape)
        trainable = tune.with_resources(train_trial, driver_resources())
    listener(SearchStarted(left, budget.left))
    if study := trial_cache.outdated_study():
        listener(NothingReused(study))
    request = StopRequest()
    for patience in (store.patience, record.patience):
        patience.hurry_when(request)
    watchdog = Watchdog(monitor, failures, searcher, request, listener)
    trackers = tracking_callbacks(plan.trackers, store.folder, store.folder.name)
    # Tune's own folder is temporary: a study resumes from its store, never from there.
    with (
        monitor,
        Scratch() as scratch,
        no_snapshots(),
        made_by_signal(request),
        _cleaned_up(trackers, store, record, budget),
    ):
        tune.Tuner(
            trainable,
            param_space={"run": run},
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,  # the searcher ends the search
                reuse_actors=True,
                trial_name_creator=lambda trial: trial_id(trial.config["number"]),
                trial_dirname_creator=lambda trial: trial_id(trial.config["number"]),
            ),
            run_config=tune.RunConfig(
                name=store.folder.name,
                storage_path=str(scratch),
                callbacks=[watchdog, recorder, *trackers],
                stop=budget,
                verbose=0,
                # The recorder raises it for trials that have started.
                failure_config=tune.FailureConfig(max_failures=0),
                # Trials write their own checkpoints; a function trainable has no setting for it.
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_at_end=None if plan.train_shape else False
                ),
            ),
        ).fit()
    if request():  # after the last step of Tune, which would have read it
        raise KeyboardInterrupt
    if searcher.cannot_start:
        return _SearchEnd.cannot_start
    if budget.reached and len(store.trials.groups()) < plan.num_samples:
        return _SearchEnd.budget
    if not any(was_not_started(row) for row in store.trials.rows()):  # else --resume needs them
        shutil.rmtree(all_checkpoints, ignore_errors=True)
    return _SearchEnd.last_trial


@contextmanager
def _cleaned_up(
    trackers: list[Any], store: StudyStore, record: StudyRecord, budget: Budget
) -> Iterator[None]:
    """At the end of the search, however it ends: remove rows of unfinished trials and end trackers."""
    writable = True
    try:
        yield
    except StorageError:
        writable = False
        raise
    except KeyboardInterrupt:  # do not wait until a full disk has room
        store.patience.hurry()
        record.patience.hurry()
        raise
    finally:
        if writable:
            store.drop_unfinished()
            store.flush(whole=True)
            if lost := budget.unfinished_hours:
                record.update(**{_UNFINISHED: record.content.get(_UNFINISHED, 0.0) + lost})
        for tracker in trackers:  # after Ctrl-C, Tune does not call it
            tracker.on_experiment_end(trials=[])


def _write_best(plan: StudyPlan, store: StudyStore, best: Row) -> None:
    space = plan.space
    text = (
        f"Best of {len(store.trials.rows())} trials of study '{store.folder.name}': trial "
        f"{best['number']}, {space.metric} {best[space.metric]:.4f} on validation data.\n"
    )
    rows = [row for row in store.confirm.rows() if row["rank"] == 1]
    tests = [row["test_map"] for row in rows if row["test_map"] is not None]
    if tests:
        spread = f" +- {stdev(tests):.4f}" if len(tests) > 1 else ""
        seeds = f"{len(tests)} seed{'s' * (len(tests) > 1)}"
        text += f"Final answer on the test part: mAP {fmean(tests):.4f}{spread} ({seeds}).\n"
    text += "Train it: bbam-ray train --config best.yaml"
    values = {**plan.settings, **parameters_of(best)}
    values.pop("folds", None)  # a single run holds out validation_fraction
    if (epoch := stop_epoch(plan.settings, best)) is not None:
        values["stop_epoch"] = epoch
    store.write_best(values, text)
