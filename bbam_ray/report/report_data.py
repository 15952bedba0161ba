"""The data of a report: a study's tables, its best and its published trial, its searched settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bbam_ray.errors import UsageError
from bbam_ray.results.loading import Study
from bbam_ray.results.schemas import COMPLETE

_BOUND = 0.02  # share of the range that counts as at a bound


@dataclass(frozen=True)
class SearchedSetting:
    """A setting that the search varies.

    Args:
        choices: texts of a categorical setting in the order of the space; None for numbers.
        low, high: the range of a number; None if the study does not record it.
        log: sampled on a logarithmic scale.
    """

    name: str
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False

    def text(self, value: Any) -> str:
        """A value as the space file writes it; empty if the trial did not use the setting."""
        if value is None or value != value:
            return ""
        if isinstance(value, (bool, np.bool_)):
            return "true" if value else "false"
        return f"{value:.4g}" if isinstance(value, (float, int)) else str(value)

    @property
    def range_text(self) -> str:
        """The choices or the range, as text."""
        if self.choices is not None:
            return ", ".join(self.choices)
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"

    def normalized(self, values: pd.Series) -> np.ndarray:
        """Values as numbers in [0, 1]: positions in the range or among the choices; NaN if not used.

        Returns:
            (n,) float64.
        """
        if self.choices is not None:
            indices = {text: i for i, text in enumerate(self.choices)}
            positions = [indices.get(self.text(value), np.nan) for value in values]
            return np.array(positions, dtype=float) / max(1, len(self.choices) - 1)
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        low = np.nanmin(numbers, initial=np.inf) if self.low is None else self.low
        high = np.nanmax(numbers, initial=-np.inf) if self.high is None else self.high
        if self.log:
            numbers, low, high = np.log(numbers), np.log(low), np.log(high)
        if high > low:
            return (numbers - low) / (high - low)
        return np.where(numbers == numbers, 0.5, np.nan)

    def bound(self, value: Any) -> str | None:
        """Return "lower" or "upper" if a value is within 2 % of the range of that bound; else None."""
        has_range = self.choices is None and self.low is not None and self.high is not None
        if not has_range or value is None or value != value or self.low == self.high:
            return None
        position = float(self.normalized(pd.Series([value], dtype=float))[0])
        return "lower" if position <= _BOUND else "upper" if position >= 1 - _BOUND else None


class ReportData:
    """A study or a run, read for its report.

    Args:
        folder: ``<results>/<data set>/<study>``.

    Raises:
        UsageError: the folder holds no study, one without an ended trial, or one of a newer version of
            this program.
    """

    def __init__(self, folder: Path) -> None:
        self.study = Study(folder)
        self.folder, self.record = folder, self.study.record
        space: Mapping[str, Any] = self.record["space"]
        self.space = space
        self.metric, self.higher_is_better = str(space["metric"]), space["mode"] != "min"
        for entry in ("environment", "command", "started_at", "ended_at"):
            if entry not in self.record:
                raise UsageError(
                    f"{folder / 'study.json'}: no entry '{entry}'; copy the study again"
                )
        if self.study.trials.empty:
            raise UsageError(f"{folder}: no trial of this study has ended yet; nothing to report")

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per ended trial, the best first."""
        return self.study.trials

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The complete trials, the best first."""
        rows = self.trials[(self.trials.state == COMPLETE) & self.trials[self.metric].notna()]
        return rows.reset_index(drop=True)

    @cached_property
    def best(self) -> Any:
        """The row of the chosen trial, while a search runs that of the best one so far; or None."""
        chosen = self.complete[self.complete.number == self.record.get("chosen", -1)]
        rows = chosen if len(chosen) else self.complete
        return rows.iloc[0] if len(rows) else None

    @cached_property
    def published(self) -> Any:
        """The row of trial 0 of a search, which has the published settings; None if there is none."""
        rows = self.trials[self.trials.number == 0]
        return rows.iloc[0] if len(rows) and not self.is_run else None

    @cached_property
    def is_run(self) -> bool:
        """Whether this is a single run (``bbam-ray train``), without a search."""
        return self.record.get("num_samples") == 1 and not self.space.get("parameters")

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row per trial and epoch, running trials included."""
        return self.study.history

    @cached_property
    def best_trial_labels(self) -> pd.DataFrame:
        """A row per epoch and label of the best trial; empty if there is none."""
        labels: pd.DataFrame = self.study.labels
        if self.best is None or labels.empty:
            return pd.DataFrame()
        rows: pd.DataFrame = labels[labels.number == self.best.number]
        return rows.sort_values("epoch", kind="stable")

    @cached_property
    def confirm_rows(self) -> list[dict[str, Any]]:
        """A row per confirmed configuration and seed."""
        rows: list[dict[str, Any]] = self.study.confirm.to_dict("records")  # type: ignore[assignment]
        return rows

    @cached_property
    def settings(self) -> list[SearchedSetting]:
        """The searched settings, from the recorded space, else from the columns of the trials."""
        parameters = self.space.get("parameters") or {}
        columns = [str(c) for c in self.trials if str(c).startswith("param_")]
        return [
            self._setting(c.removeprefix("param_"), parameters, self.trials[c]) for c in columns
        ]

    def _setting(
        self, name: str, parameters: Mapping[str, Any], values: pd.Series
    ) -> SearchedSetting:
        parameter = parameters.get(name)
        if parameter is not None and parameter.get("choices") is None:
            low, high = parameter["low"], parameter["high"]
            return SearchedSetting(name, None, low, high, bool(parameter.get("log")))
        number = SearchedSetting(name)
        if parameter is not None:
            # study.json records an infinite choice as the text "inf", which is also its text here.
            return SearchedSetting(name, tuple(number.text(c) for c in parameter["choices"]))
        if values.dtype == object or pd.api.types.is_string_dtype(values):
            texts = {number.text(v) for v in values if v == v and v is not None}
            return SearchedSetting(name, tuple(sorted(texts)))
        return number

    def best_setting(self, name: str) -> Any:
        """The value of a setting in the best trial, searched or fixed; None if it is not recorded."""
        column = f"param_{name}"
        if self.best is not None and column in self.best and pd.notna(self.best[column]):
            return self.best[column]
        fixed = {**(self.space.get("fixed") or {}), **self.record.get("settings", {})}
        return fixed.get(name)
