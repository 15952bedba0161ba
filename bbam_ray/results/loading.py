"""Load a stored study or run in Python: tables as data frames, best settings, a summary."""

from __future__ import annotations

import os
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError, quoted
from bbam_ray.results.remote import local_copy
from bbam_ray.results.schema_checks import check_record, checked_table
from bbam_ray.results.schemas import TrialState
from bbam_ray.results.study import StudyRecord
from bbam_ray.results.summary import confirmed_metrics, gain_sentences


class Study:
    """A stored study. Its tables are read at first use.

    Args:
        folder: ``<results>/<data set>/<study>``.

    Raises:
        UsageError: there is no study, or it is damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "study.json").is_file():
            raise UsageError(f"{self.folder}: there is no study; give <results>/<data set>/<study>")
        self.record: dict[str, Any] = StudyRecord.open(self.folder).content
        check_record(self.folder / "study.json", self.record)

    @property
    def name(self) -> str:
        return str(self.record["study"])

    @property
    def status(self) -> str:
        """RUNNING, COMPLETE, FAILED or INTERRUPTED, when the study was loaded."""
        return str(self.record["status"])

    @property
    def metric(self) -> str:
        """The (first) objective, a column of ``trials``."""
        return str(self.record["space"]["metric"])

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.parquet"
        if not os.path.lexists(path):
            return pd.DataFrame()
        table = checked_table(path, name)
        frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()
        return frame

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per ended trial, the best first."""
        table = self._table("trials")
        if table.empty:
            return table
        for name in (self.metric, *(other for other, _ in self.record["space"].get("also", []))):
            if name not in table or not pd.api.types.is_float_dtype(table[name]):
                raise UsageError(
                    f"{self.folder / 'study.json'}: space.metric names {quoted(name)}, which is not a "
                    "metric of its trials; copy the study again"
                )
        ascending = self.record["space"]["mode"] == "min"
        rank = table["state"].map({state: rank for rank, state in enumerate(TrialState)})
        order = table.assign(_rank=rank).sort_values(
            ["_rank", self.metric, "number"], ascending=[True, ascending, True]
        )
        return order.drop(columns="_rank").reset_index(drop=True)

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row per trial and epoch."""
        return self._table("history")

    @cached_property
    def folds(self) -> pd.DataFrame:
        """A row per trial, fold and epoch; empty unless trials have several folds."""
        return self._table("folds")

    @cached_property
    def labels(self) -> pd.DataFrame:
        """A row per trial, epoch and label."""
        return self._table("labels")

    @cached_property
    def confirm(self) -> pd.DataFrame:
        """A row per confirmed configuration and seed: the only test metrics."""
        return self._table("confirm")

    @cached_property
    def split(self) -> pd.DataFrame:
        """A row per training sample: labeled, validation or unlabeled in the search."""
        return self._table("split")

    @cached_property
    def best(self) -> dict[str, Any]:
        """Settings of the best configuration, as in ``best.yaml``; for a single run, its settings."""
        path = self.folder / "best.yaml"
        return read_yaml_mapping(path) if path.exists() else dict(self.record["settings"])

    def summary(self) -> list[str]:
        """Lines of text: status, best trial, confirmed test metrics, folder."""
        lines = [
            f"study {self.name}: {self.record['method']} on {self.record['dataset']}, {self.status}, "
            f"{len(self.trials)} of {self.record.get('num_samples') or len(self.trials)} trials"
        ]
        if len(self.trials) and self.trials["state"].iloc[0] == TrialState.COMPLETE:
            chosen = self.trials[self.trials["number"] == self.record.get("chosen", -1)]
            top = (chosen if len(chosen) else self.trials).iloc[0]
            lines.append(f"best: trial {top['number']}, {self.metric} {top[self.metric]:.4f}")
            searched = [n for n in top.index if n.startswith("param_") and pd.notna(top[n])]
            if searched:
                values = (f"{n.removeprefix('param_')}={top[n]}" for n in searched)
                lines.append("  " + " ".join(values))
        rows = self.confirm.to_dict("records") if len(self.confirm) else []
        for confirmed in confirmed_metrics(rows):  # type: ignore[arg-type]
            spread = "" if confirmed.deviation is None else f" +- {confirmed.deviation:.4f}"
            lines.append(
                f"{confirmed.title}: test mAP {confirmed.mean:.4f}{spread} over "
                f"{confirmed.seeds} seed{'s' * (confirmed.seeds > 1)}"
            )
        lines += gain_sentences(self.record)
        return [*lines, f"files: {self.folder}"]

    def __repr__(self) -> str:
        return "\n".join(self.summary())

    def _repr_html_(self) -> str:
        columns = ["number", "state", self.metric, "best_epoch", "epochs", "duration_s"]
        table = self.trials
        short = table[[c for c in table if c in columns or str(c).startswith("param_")]].head(10)
        lines = "<br>".join(escape(line) for line in self.summary())
        return f"<p>{lines}</p>{short.to_html(index=False, float_format='{:.4g}'.format)}"


def load_study(folder: Path | str) -> Study:
    """Load a study or run, also while it is running.

    Args:
        folder: ``<results>/<data set>/<study>``, also on object storage (s3:// and so on).
    """
    return Study(local_copy(folder))
