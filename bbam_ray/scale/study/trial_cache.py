"""Trials that were trained before, in this study or one next to it, are not trained again."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from bbam_ray.engine.fingerprint import data_state, run_fingerprint
from bbam_ray.engine.pruning_rule import TrialRules
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.results import schemas
from bbam_ray.results.fold_rows import kept_phase, kept_rows, rows_by_fold
from bbam_ray.results.store import Row, StudyStore, read_table
from bbam_ray.scale.search.outcomes import (
    Outcome,
    objective_by_epoch,
    outcome_of,
    parameters_of,
    trial_id,
    trial_row,
)
from bbam_ray.scale.search.pareto import ParetoSet
from bbam_ray.scale.search.warm_start import parameters_in, study_settings
from bbam_ray.scale.study.fold_store import FOLDS, FoldStore
from bbam_ray.scale.study.plan import StudyPlan

Source = tuple[Path, int]  # study folder and number of a trial


class TrialCache:
    """Complete trials of this study and of the other studies on the data set, by fingerprint.

    Args:
        plan: of this study.
        store: of this study; the other studies are in the folders next to its folder.
        pareto_set: of this study; a reused trial may enter it.
    """

    def __init__(self, plan: StudyPlan, store: StudyStore, pareto_set: ParetoSet) -> None:
        self._plan, self._store, self._fold_store = plan, store, FoldStore(store)
        self._pareto_set = pareto_set
        self._sources: dict[str, Source] = {}
        self._first_trials: dict[Path, Row] = {}  # of the other studies
        self._data_states: dict[str, str] = {}
        # Compute it now: code and data may be changed while the first trial trains.
        self.fingerprint(plan.space.published)
        if plan.reuse:
            for folder in sorted(store.folder.parent.iterdir()):
                if folder != store.folder and (folder / "trials.parquet").is_file():
                    self._read(folder)
            for row in store.trials.rows():
                self.add(row)

    def _read(self, folder: Path) -> None:
        try:
            table = read_table(folder / "trials.parquet")
        except UsageError:  # damaged, or of a newer version
            return
        if "fingerprint" not in table.column_names:
            return
        for row in table.select(["number", "state", "fingerprint"]).to_pylist():
            self._add(folder, row)
        for row in table.filter(pc.equal(table["number"], 0)).to_pylist():
            if row["fingerprint"]:
                self._first_trials[folder] = row

    def add(self, row: Row) -> None:
        """Add a trial of this study that has ended."""
        if self._plan.reuse:
            self._add(self._store.folder, row)

    def _add(self, folder: Path, row: Row) -> None:
        if row["state"] == schemas.COMPLETE and row["fingerprint"]:
            self._sources.setdefault(row["fingerprint"], (folder, row["number"]))

    def fingerprint(self, parameters: dict[str, Any]) -> str:
        """Of the trial of this study with these parameters."""
        plan, train = self._plan, self._plan.train_shape
        workers = [train.min_workers, train.max_workers] if train else plan.shape.workers
        config = run_config({**plan.settings, **parameters}, "trial")
        options = repr((config.data, config.training.weights, config.training.backbone))
        if options not in self._data_states:  # once: it may look at every file of a data set
            self._data_states[options] = data_state(config)
        resources = {"workers": workers, "cpus": plan.shape.cpus, "gpus": plan.shape.gpus}
        return run_fingerprint(config, self._data_states[options], resources)

    def outdated_study(self) -> str | None:
        """A study whose trials cannot be reused although their settings are those of this study.

        Code, libraries, data, hardware or number of workers differ: a fingerprint does not tell which.

        Returns:
            Its name; None if there is none, or if trial 0 can be reused from elsewhere.
        """
        space, settings = self._plan.space, self._plan.settings
        if self.fingerprint(space.published) in self._sources:
            return None
        for folder, row in self._first_trials.items():
            with suppress(UsageError, KeyError):
                values = {**study_settings(folder), **parameters_of(row)}
                if parameters_in(space, settings, values) == space.published:
                    return folder.name
        return None

    def lookup(
        self, identity: Row, parameters: dict[str, Any], rules: TrialRules
    ) -> tuple[Row, Outcome] | None:
        """Copy the rows of an identical earlier trial into this study.

        The copy ends where the pruning rule would have ended the trial. With several folds, a trial that
        would have been pruned is trained: the rows of its label table are means over all folds.

        Args:
            identity: the columns that name the new trial.
            parameters: its configuration.
            rules: that it follows in this study.

        Returns:
            The trial's row, as stored, and its outcome; None if there is no such trial.
        """
        fingerprint = self.fingerprint(parameters) if self._sources else ""
        source = self._sources.get(fingerprint)
        if source is None:
            return None
        try:
            history, labels, folds = _rows(self._store, *source)
        except UsageError:  # deleted or damaged since
            del self._sources[fingerprint]
            return None
        folder, number = source
        space = self._plan.space
        end = self._end(history, folds, rules)
        if folds and end is not None:
            return None
        history, labels, folds = (
            [row | identity for row in rows if end is None or row["epoch"] <= end]
            for rows in (history, labels, folds)
        )
        if end is None:
            self._fold_store.copy(folder / FOLDS / trial_id(number), trial_id(identity["number"]))
        state = schemas.COMPLETE if end is None else schemas.PRUNED
        row = trial_row(
            identity,
            parameters,
            state,
            folds or history,
            space,
            None,
            keep=self._plan.config_of(parameters).training.keep_rule,
            bootstrap_error=self._bootstrap_errors(trial_id(identity["number"])),
        ) | {
            "seed": self._plan.settings["seed"],
            "started_at": datetime.now(UTC),
            "duration_s": 0.0,
            "gpu_hours": 0.0,
            "cost": self._plan.limits.cost_of(0.0),
            "fingerprint": fingerprint,
            "answered_by": f"{folder.name}/{trial_id(number)}",
        }
        self._store.history.put(history)
        self._store.folds.put(folds)
        self._store.labels.put(labels)
        row = self._pareto_set.add(row)
        self._store.end_trial(row)
        self._store.flush()
        return row, outcome_of(row, folds or history, space)

    def _end(self, history: list[Row], folds: list[Row], rules: TrialRules) -> int | None:
        """The epoch or the number of folds after which a trial would have been pruned; None = never."""
        metric = self._plan.space.metric
        first = [row for row in folds if row["fold"] == 0] or history
        if rules.pruning and (end := rules.pruning.end(objective_by_epoch(first, metric))):
            return end
        if not (rules.folds and folds):
            return None
        keep = self._plan.published_config.training.keep_rule
        by_fold = rows_by_fold(folds)
        # A trial that is training decides for each fold by itself.
        values = [
            kept_rows({0: rows}, kept_phase({0: rows}, keep))[0][metric]
            for rows in by_fold.values()
        ]
        return rules.folds.end(values)

    def _bootstrap_errors(self, name: str) -> dict[str, float]:
        """Standard errors of val_map by phase, of a trial with one fold."""
        result = self._fold_store.read(name, 0) if self._plan.folds == 1 else None
        weights = result.weights if result else {}
        return {phase: each.standard_error for phase, each in weights.items()}


def _rows(store: StudyStore, folder: Path, number: int) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows of the history, of labels and of folds of a trial of this study or of another one."""
    if folder == store.folder:
        tables = (store.history, store.labels, store.folds)
        history, labels, folds = (table.rows_of(number) for table in tables)
        return history, labels, folds
    parts: list[list[Row]] = []
    for table in (store.history, store.labels, store.folds):
        path = folder / table.path.name
        if table is store.folds and not path.exists():
            parts.append([])
            continue
        stored = read_table(path, where=("number", number))
        # Without columns of another version.
        names = [name for name in stored.column_names if name in table.schema.names]
        parts.append(stored.select(names).to_pylist())
    history, labels, folds = parts
    if not history:
        raise UsageError(f"{folder}: the history of trial {number} is missing")
    return history, labels, folds
