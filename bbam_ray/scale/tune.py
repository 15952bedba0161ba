"""A study: search with Ray Tune and Optuna, then confirm the best over seeds."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from ray import tune

from bbam_ray.results import schemas
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.results.study import COMPLETE, FAILED, INTERRUPTED, StudyRecord
from bbam_ray.scale.cluster import driver_resources
from bbam_ray.scale.confirm import confirm, parameters_of, stop_epoch
from bbam_ray.scale.plan import StudyPlan, StudyResult
from bbam_ray.scale.pulse import Watch
from bbam_ray.scale.recorder import Listener, Recorder, outcome_of, trial_id
from bbam_ray.scale.search import Outcome, Sequence, StudySearcher, write_study_db
from bbam_ray.scale.space import Space
from bbam_ray.scale.train_trial import train_trial
from bbam_ray.scale.trial import Trial


def ranked(trials: list[Row], space: Space) -> list[Row]:
    """Complete trials from the best to the worst; the earlier one wins a tie."""
    complete = [row for row in trials if row["state"] == schemas.COMPLETE]
    sign = -1 if space.mode == "max" else 1
    return sorted(complete, key=lambda row: (sign * row[space.metric], row["number"]))


def run_study(plan: StudyPlan, record: StudyRecord, listener: Listener) -> StudyResult:
    """Run or go on with a study inside a connected Ray; the store is complete at every moment.

    Args:
        plan: what to do.
        record: of the study's folder, which holds the rows of an earlier run, if any.
        listener: is told of every event.

    Raises:
        KeyboardInterrupt: passed on after everything that was done has been written.
    """
    store = StudyStore(record.folder, plan.space.kinds)
    history: dict[int, list[Row]] = {}
    for row in store.history.rows():
        history.setdefault(row["number"], []).append(row)
    outcomes = {
        row["number"]: outcome_of(row, history.get(row["number"], []), plan.space)
        for row in store.trials.rows()
    }
    store.flush()
    try:
        _search(plan, store, outcomes, listener)
        best = ranked(store.trials.rows(), plan.space)[: plan.confirm_top]
        if best and plan.confirm_seeds:
            confirm(plan, store, best, listener)
    except KeyboardInterrupt:
        _close(plan, store, outcomes, record, INTERRUPTED)
        raise
    except BaseException:
        _close(plan, store, outcomes, record, FAILED)
        raise
    return _close(plan, store, outcomes, record, COMPLETE)


def stored_result(plan: StudyPlan, record: StudyRecord) -> StudyResult:
    """What the folder of a study holds at this moment."""
    store = StudyStore(record.folder, plan.space.kinds)
    trials = store.trials.rows()
    order = ranked(trials, plan.space)
    status = record.content["status"]
    return StudyResult(status, trials, store.confirm.rows(), order[0] if order else None)


def _close(
    plan: StudyPlan,
    store: StudyStore,
    outcomes: dict[int, Outcome],
    record: StudyRecord,
    status: str,
) -> StudyResult:
    """Write everything that a reader of the folder needs, however the study ended."""
    store.flush()
    write_study_db(record.folder / "study.db", record.folder.name, plan.space, outcomes.values())
    order = ranked(store.trials.rows(), plan.space)
    if order:
        _write_best(plan, store, order[0])
    record.end(FAILED if status == COMPLETE and not order else status)
    return stored_result(plan, record)


def _search(
    plan: StudyPlan, store: StudyStore, outcomes: dict[int, Outcome], listener: Listener
) -> None:
    left = plan.num_samples - sum(number < plan.num_samples for number in outcomes)
    if left <= 0:
        return
    sequence = Sequence(plan.space, plan.settings["seed"], plan.lag, outcomes.values())
    sequence.outcomes = outcomes  # the recorder adds to it as trials end
    searcher = StudySearcher(sequence, plan.num_samples, plan.concurrency)
    gpus = plan.shape.gpus * plan.shape.workers
    watch = Watch(plan.shape.timeout_s)
    recorder = Recorder(
        store, plan.space, outcomes, plan.settings, gpus, plan.label_names, listener, watch
    )
    run: Row = {"settings": plan.settings, "shape": asdict(plan.shape), "beats": watch.beats}
    checkpoints = store.folder.absolute() / "checkpoints"
    trainable: Any = Trial
    if plan.train_shape is not None:
        run |= {"train_shape": asdict(plan.train_shape), "checkpoints": str(checkpoints / "trials")}
        trainable = tune.with_resources(train_trial, driver_resources())
    # Tune's own folder is scratch: the study goes on from its store, never from here.
    with tempfile.TemporaryDirectory(prefix="bbam-ray-") as scratch:
        tune.Tuner(
            trainable,
            param_space={"run": run},
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=left,
                reuse_actors=True,
                time_budget_s=plan.time_budget,
                trial_name_creator=lambda trial: trial_id(trial.config["number"]),
                trial_dirname_creator=lambda trial: trial_id(trial.config["number"]),
            ),
            run_config=tune.RunConfig(
                name=store.folder.name,
                storage_path=scratch,
                callbacks=[recorder],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=plan.max_failures),
                # What a trial goes on from when one of its workers is lost.
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0 if plan.train_shape else 1, num_to_keep=1
                ),
            ),
        ).fit()


def _write_best(plan: StudyPlan, store: StudyStore, best: Row) -> None:
    space = plan.space
    text = (
        f"Best of {len(store.trials.rows())} trials of study '{store.folder.name}': trial "
        f"{best['number']}, {space.metric} {best[space.metric]:.4f} on validation data.\n"
    )
    figures = [r["test_map"] for r in store.confirm.rows() if r["number"] == best["number"]]
    figures = [figure for figure in figures if figure is not None]
    if figures:
        spread = f" +- {stdev(figures):.4f}" if len(figures) > 1 else ""
        text += f"Confirmed on the test part: mAP {fmean(figures):.4f}{spread} ({len(figures)} seeds).\n"
    text += "Train it: bbam-ray train --config best.yaml"
    values = {**plan.settings, **parameters_of(best)}
    if (epoch := stop_epoch(plan.settings, best)) is not None:
        values["stop_epoch"] = epoch
    store.write_best(values, text)
