"""Never the same work twice: what was trained before is answered from the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bbam_ray.engine.fingerprint import data_state, run_fingerprint
from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.results import schemas
from bbam_ray.results.store import Row, StudyStore, read_table
from bbam_ray.scale.search.outcomes import (
    Outcome,
    mark_pareto,
    objective_by_epoch,
    outcome_of,
    trial_row,
)
from bbam_ray.scale.study.plan import StudyPlan

Source = tuple[Path, int]  # study folder and number of a trial


class TrialCache:
    """Complete trials of this study and of its neighbours, by fingerprint.

    Args:
        plan: of this study.
        store: of this study; its folder's neighbours are the other studies on the data set.
    """

    def __init__(self, plan: StudyPlan, store: StudyStore) -> None:
        self._plan, self._store = plan, store
        self._sources: dict[str, Source] = {}
        self._data: dict[str, str] = {}
        # Now, not when the first trial ends: code and data may be changed while it trains.
        self.fingerprint(plan.space.published)
        if plan.reuse:
            for folder in sorted(store.folder.parent.iterdir()):
                if folder != store.folder and (folder / "trials.parquet").is_file():
                    self._learn(folder)
            for row in store.trials.rows():
                self.add(row)

    def _learn(self, folder: Path) -> None:
        try:
            table = read_table(folder / "trials.parquet")
        except UsageError:  # damaged or newer: then it answers nothing
            return
        if "fingerprint" not in table.column_names:
            return
        for row in table.select(["number", "state", "fingerprint"]).to_pylist():
            self._add(folder, row)

    def add(self, row: Row) -> None:
        """Take in a trial of this study that has ended."""
        if self._plan.reuse:
            self._add(self._store.folder, row)

    def _add(self, folder: Path, row: Row) -> None:
        if row["state"] == schemas.COMPLETE and row["fingerprint"]:
            self._sources.setdefault(row["fingerprint"], (folder, row["number"]))

    def fingerprint(self, parameters: dict[str, Any]) -> str:
        """Of the trial of this study with such parameters."""
        plan, train = self._plan, self._plan.train_shape
        workers = [train.min_workers, train.max_workers] if train else plan.shape.workers
        config = run_config({**plan.settings, **parameters}, "trial")
        options = repr((config.data, config.training.weights))
        if options not in self._data:  # once: it may look at every file of a data set
            self._data[options] = data_state(config)
        resources = {"workers": workers, "cpus": plan.shape.cpus, "gpus": plan.shape.gpus}
        return run_fingerprint(config, self._data[options], resources)

    def lookup(
        self, identity: Row, parameters: dict[str, Any], pruning_rule: PruningRule | None
    ) -> Row | None:
        """Take over the rows of a trial that did the same work; None where there is none.

        A pruning_rule that this study has and the other had not ends the trial where it would have ended.

        Returns:
            The trial's row, as stored.
        """
        mark = self.fingerprint(parameters) if self._sources else ""
        source = self._sources.get(mark)
        if source is None:
            return None
        try:
            history, labels = _rows(self._store, *source)
        except UsageError:  # deleted or damaged since
            del self._sources[mark]
            return None
        space = self._plan.space
        end = pruning_rule.end(objective_by_epoch(history, space.metric)) if pruning_rule else None
        history, labels = (
            [row | identity for row in rows if end is None or row["epoch"] <= end]
            for rows in (history, labels)
        )
        folder, number = source
        state = schemas.COMPLETE if end is None else schemas.PRUNED
        row = trial_row(identity, parameters, state, history, space, None) | {
            "seed": self._plan.settings["seed"],
            "started_at": datetime.now(UTC),
            "duration_s": 0.0,
            "gpu_hours": 0.0,
            "cost": self._plan.limits.cost_of(0.0),
            "fingerprint": mark,
            "answered_by": f"{folder.name}/t{number:05d}",
        }
        self._store.history.put(history)
        self._store.labels.put(labels)
        self._store.trials.put([row])
        mark_pareto(self._store, space)
        self._store.flush()
        return row

    def outcome(self, row: Row) -> Outcome:
        """An answered trial as the search sees it."""
        return outcome_of(row, self._store.history.rows_of(row["number"]), self._plan.space)


def _rows(store: StudyStore, folder: Path, number: int) -> tuple[list[Row], list[Row]]:
    """History and label rows of a trial of this study or of another one."""
    if folder == store.folder:
        return store.history.rows_of(number), store.labels.rows_of(number)
    found = []
    for table in (store.history, store.labels):
        stored = read_table(folder / table.path.name)
        names = [name for name in stored.column_names if name in table.schema.names]
        rows = stored.select(names).to_pylist()  # without columns of another version
        found.append([row for row in rows if row["number"] == number])
    if not found[0]:
        raise UsageError(f"{folder}: history of trial {number} is gone")
    return found[0], found[1]
