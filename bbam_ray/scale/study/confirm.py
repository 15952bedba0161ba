"""Confirmation: the final answer, the published settings and the baselines on the test part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bbam_ray.engine.confirm import Decisions, confirmation_config, pool_seed
from bbam_ray.engine.folds import files_of, write_folder
from bbam_ray.engine.model import Model
from bbam_ray.errors import UsageError
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.results.study import StudyRecord
from bbam_ray.results.summary import confirmed_folder
from bbam_ray.scale.search.outcomes import parameters_of, trial_id
from bbam_ray.scale.study.bags import Bags, stop_epoch
from bbam_ray.scale.study.compose import compose
from bbam_ray.scale.study.events import ConfirmEnded, ConfirmStarted, Listener, Notice
from bbam_ray.scale.study.final_answer import FinalAnswer, choose_answer, decisions_of
from bbam_ray.scale.study.final_kinds import Final
from bbam_ray.scale.study.jobs import Job, JobResult, run_jobs
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.study.start_failures import StartFailures
from bbam_ray.scale.workers.heartbeat import HeartbeatMonitor

FOLD_GPU_HOURS = "fold_gpu_hours"  # in study.json: of fold models and baselines after the search
FINAL, TRIAL, PUBLISHED = "final", "trial", "published"  # in the column ``answer``


class Confirmation:
    """Measures answers on the test part, each over seeds; what succeeded before is kept.

    Args:
        plan: of the study.
        store: its tables; rows are added to ``confirm``.
        record: of the study; it gets the final answer.
        monitor: kills frozen processes.
        failures: workers that cannot start.
        listener: gets an event at the start and the end of each run.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: StudyStore,
        record: StudyRecord,
        monitor: HeartbeatMonitor,
        failures: StartFailures,
        listener: Listener,
    ) -> None:
        self._plan, self._store, self._record, self._listener = plan, store, record, listener
        self._bags = Bags(plan, store, self._run, self._count)
        self._monitor, self._failures = monitor, failures
        self._started = 0  # answers that were started
        self._seeds = confirmation_seeds(plan)

    def run(self, chosen: Row, order: Sequence[Row]) -> None:
        """Measure the final answer and what it is compared with.

        Args:
            chosen: row of the chosen trial.
            order: rows of complete trials, the best first.
        """
        plan = self._plan
        rest = [row for row in order if row["number"] != chosen["number"]]
        compared = rest[: plan.confirm_top - 1]
        published = [] if not plan.published else [self._published_row(order)]
        members = [chosen]
        if plan.final is Final.best and order[0]["number"] != chosen["number"]:
            members.append(order[0])  # the choice may have been wrong
        final: FinalAnswer | UsageError
        changed = False
        try:
            final = self._choose(members)
            changed = self._record.content.get("final") != final.content()
            self._record.update(final=final.content())
        except UsageError as error:  # its rows get the reason; the others are still measured
            final = error
        entries = [(FINAL, chosen), *((TRIAL, row) for row in compared)]
        entries += [(PUBLISHED, row) for row in published]
        ranks = {(name, row["number"]): rank for rank, (name, row) in enumerate(entries, start=1)}
        for index in range(len(plan.baselines)):
            ranks[plan.baselines[index], -1 - index] = len(entries) + 1 + index
        self._store.confirm.put(
            row | {"rank": ranks.get((row["answer"] or TRIAL, row["number"]))}
            for row in self._store.confirm.rows()
        )
        self._store.flush()
        waiting = [
            self._row(name, row, seed, ranks[name, row["number"]])
            for name, row in entries
            for seed in self._seeds
        ]
        waiting = [row for row in waiting if not self._is_done(row, changed)]
        self._train(final, waiting, {(n, r["number"]): r for n, r in entries})
        self._test_baselines(ranks)

    def _count(self, seconds: float) -> None:
        """Add the GPU-hours of a job that has no row of its own to the record."""
        if self._plan.gpus:
            before = self._record.content.get(FOLD_GPU_HOURS, 0.0)
            hours = seconds / 3600 * self._plan.gpus
            self._record.update(**{FOLD_GPU_HOURS: before + hours})

    # ------------------------------------------------------------------ choice

    def _choose(self, trials: Sequence[Row]) -> FinalAnswer:
        """The final answer, from out-of-fold scores of the search and of the baselines.

        Args:
            trials: that may be in it, the chosen one first.

        Raises:
            UsageError: a fold of the chosen trial could not be trained.
        """
        plan = self._plan
        self._bags.baselines.train()
        self._bags.train_folds(trials, [plan.settings["seed"]])
        bags = self._bags.of_trials(trials[:1], plan.settings["seed"])
        for trial in trials[1:]:
            try:
                bags += self._bags.of_trials([trial], plan.settings["seed"])
            except UsageError as error:
                name = trial["trial_id"]
                self._listener(Notice(f"the final answer is chosen without trial {name}: {error}"))
        if plan.final is Final.best:
            bags += self._bags.baselines.bags()
        return choose_answer(plan.final, bags)

    def _published_row(self, order: Iterable[Row]) -> Row:
        """The row of trial 0; without its results if it did not end well."""
        for row in order:
            if row["number"] == 0:
                return row
        parameters = {f"param_{k}": v for k, v in self._plan.space.published.items()}
        study = self._store.folder.name
        return {"study": study, "trial_id": trial_id(0), "number": 0, "kept": None, **parameters}

    # -------------------------------------------------------------------- rows

    def _row(self, kind: str, trial: Row, seed: int, rank: int | None) -> Row:
        row = {name: value for name, value in trial.items() if name.startswith("param_")}
        row |= {name: trial[name] for name in ("study", "trial_id", "number")}
        return row | {"rank": rank, "seed": seed, "answer": kind}

    def _is_done(self, row: Row, changed: bool) -> bool:
        """Whether the store has a successful run with a readable model, of the same answer."""
        key = ("answer", "number", "seed")
        stored = [
            each
            for each in self._store.confirm.rows()
            if all(each[name] == row[name] for name in key) and not each["error"]
        ]
        outdated = changed and row["answer"] == FINAL
        return bool(stored) and not outdated and not _damaged(model_folder(self._store, row))

    def _end(self, row: Row, result: JobResult) -> None:
        """Store the row and the model of a run that has ended."""
        metrics, files = result.value or ({}, {})
        if files:
            folder = model_folder(self._store, row)
            self._store.patience.insist(partial(write_folder, files, folder))
        row |= {"started_at": result.started_at, "error": result.error} | metrics
        row["duration_s"] = result.seconds
        row["gpu_hours"] = result.seconds / 3600 * self._plan.gpus
        row["cost"] = self._plan.limits.cost_of(row["gpu_hours"])
        index = row.pop("index", 0)
        self._store.confirm.put([row])
        self._store.flush()
        self._listener(ConfirmEnded(index, row))

    def _run(self, jobs: Sequence[Job], done: Any, text: str = "") -> None:
        """Run jobs.

        Args:
            jobs: to run.
            done: called with each job that has ended, and its result.
            text: what they are, unless they have rows of their own.
        """
        if jobs and text:
            self._listener(Notice(f"{text} ({len(jobs)})"))

        def started(job: Job) -> None:
            if isinstance(job.tag, dict):  # a row of the table
                job.tag["index"] = self._started
                self._listener(ConfirmStarted(self._started, job.tag))
                self._started += 1

        def ended(job: Job, result: JobResult) -> None:
            if result.start_error is not None:
                self._failures.report(job.name, result.start_error)
            done(job, result)

        study = self._store.folder.name
        run_jobs(self._plan, study, jobs, self._monitor, ended, started)

    # ---------------------------------------------------------------- training

    def _train(
        self,
        final: FinalAnswer | UsageError,
        waiting: list[Row],
        trials: dict[tuple[str, int], Row],
    ) -> None:
        """Train and test what is not done.

        Args:
            final: the final answer, or why there is none.
            waiting: rows to fill.
            trials: row of the trial by answer and number.
        """
        plan = self._plan
        singles: list[Row] = []
        ensembles: list[Row] = []
        for row in waiting:
            is_single = row["answer"] != FINAL or plan.final is Final.single
            (singles if is_single else ensembles).append(row)
        own = [trials[row["answer"], row["number"]] for row in singles]
        self._bags.train_folds(own, [plan.settings["seed"]])
        makers = [
            (row, partial(self._single_job, row, trial))
            for row, trial in zip(singles, own, strict=True)
        ]
        if isinstance(final, FinalAnswer):
            members = self._bags.members(final)
            seeds = sorted({row["seed"] for row in ensembles})
            self._bags.train_folds(members, seeds)
            self._bags.train_full_models(members, seeds)
            makers += [(row, partial(self._ensemble_job, final, members, row)) for row in ensembles]
        else:
            for row in ensembles:
                self._end(row, JobResult(None, str(final), datetime.now(UTC), 0.0))
        jobs = []
        for row, make in makers:
            try:
                jobs.append(make())
            except UsageError as error:  # a fold could not be trained
                self._end(row, JobResult(None, str(error), datetime.now(UTC), 0.0))
        self._run(jobs, lambda job, result: self._end(job.tag, result))

    def _single_job(self, row: Row, trial: Row) -> Job:
        """Train one model on all labelled samples, and test it."""
        plan, seed = self._plan, row["seed"]
        (bag,) = self._bags.of_trials([trial], plan.settings["seed"])
        config = confirmation_config(
            plan.settings,
            parameters_of(trial),
            seed,
            stop_epoch(plan.settings, trial),
            same_pool=plan.same_pool,
        )
        name = f"confirm {row['answer']} {row['trial_id']}, seed {seed}"
        decisions = Decisions.of(bag.scores, bag.labels)
        # Other labelled samples must not have help from the labels of the search's.
        scores = (bag.scores, bag.labels) if plan.same_pool else None
        return Job(name, "confirm", (config.flat(), decisions, scores), tag=row)

    def _ensemble_job(self, final: FinalAnswer, members: list[Row], row: Row) -> Job:
        """Put fold models of a seed together, and test the result."""
        plan, seed = self._plan, row["seed"]
        bags = self._bags.of_trials(members, seed)
        bags += [bag for bag in self._bags.baselines.bags() if bag.name in final.weights]
        files = compose(final, bags, self._bags, seed, decisions_of(final, bags))
        settings = {**plan.settings, **parameters_of(row), "split_seed": pool_seed(plan.settings)}
        values = {**settings, "folds": 1, "fold": 0, "validation_fraction": 0.0}
        name = f"test the final answer, seed {seed}"
        return Job(name, "test", (files, values), gang=False, tag=row)

    def _test_baselines(self, ranks: dict[tuple[str, int], int]) -> None:
        """Measure the models of the baselines."""
        plan, jobs = self._plan, []
        for index, name in enumerate(plan.baselines):
            study, seed = self._store.folder.name, plan.settings["seed"]
            trial = {"study": study, "trial_id": name, "number": -1 - index}
            row = self._row(name, trial, seed, ranks[name, -1 - index])
            if self._is_done(row, changed=False):
                continue
            if error := self._bags.baselines.error(name):
                self._end(row, JobResult(None, error, datetime.now(UTC), 0.0))
                continue
            files = files_of(self._bags.baselines.model(name))
            arguments = (files, self._bags.baselines.settings(name))
            jobs.append(Job(f"test {name}", "test", arguments, gang=False, tag=row))
        self._run(jobs, lambda job, result: self._end(job.tag, result))


def confirmation_seeds(plan: StudyPlan) -> list[int]:
    """Seeds of the confirmation.

    The first one is that of the search, whose fold models exist, if the labelled samples are those of
    the search as well. Otherwise its labelled samples chose the best trials, so it is left out.
    """
    first: int = plan.settings["seed"] + (not plan.same_pool)
    return [first + index for index in range(plan.confirm_seeds)]


def model_folder(store: StudyStore, row: Row) -> Path:
    """Folder of the model of a confirmed run."""
    return store.folder / "checkpoints" / confirmed_folder(row)


def _damaged(model: Path) -> bool:
    """True if the model folder exists but is unreadable; a deleted folder is fine."""
    if not model.is_dir():
        return False
    try:
        Model(model, "cpu")
    except UsageError:
        return True
    return False
