"""What a report is made of: a study's tables, its best and its published trial, its searched settings."""

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

_BOUND = 0.02


@dataclass(frozen=True)
class Setting:
    """A searched setting.

    Args:
        choices: texts of a categorical setting in the order of the space; None for numbers.
        low, high: ends of the range of a number, where the study tells them.
        log: whether it was drawn on a logarithmic scale.
    """

    name: str
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False

    def text(self, value: Any) -> str:
        """A value as the space file writes it; empty for a setting that was not in use."""
        if value is None or value != value:
            return ""
        if isinstance(value, (bool, np.bool_)):
            return "true" if value else "false"
        return f"{value:.4g}" if isinstance(value, (float, int)) else str(value)

    @property
    def range_text(self) -> str:
        if self.choices is not None:
            return ", ".join(self.choices)
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"

    def unit(self, values: pd.Series) -> np.ndarray:
        """Values as numbers in [0, 1] over the range; choices by place; NaN where not in use.

        Returns:
            (n,) float64.
        """
        if self.choices is not None:
            place = {text: i for i, text in enumerate(self.choices)}
            found = [place.get(self.text(value), np.nan) for value in values]
            return np.array(found, dtype=float) / max(1, len(self.choices) - 1)
        number = values.to_numpy(dtype=float, na_value=np.nan)
        low = np.nanmin(number, initial=np.inf) if self.low is None else self.low
        high = np.nanmax(number, initial=-np.inf) if self.high is None else self.high
        if self.log:
            number, low, high = np.log(number), np.log(low), np.log(high)
        return (
            (number - low) / (high - low) if high > low else np.where(number == number, 0.5, np.nan)
        )

    def bound(self, value: Any) -> str | None:
        """Which end of the range a value lies at ("lower", "upper"): within 2 % of the range."""
        ranged = self.choices is None and self.low is not None and self.high is not None
        if not ranged or value is None or value != value or self.low == self.high:
            return None
        place = float(self.unit(pd.Series([value], dtype=float))[0])
        return "lower" if place <= _BOUND else "upper" if place >= 1 - _BOUND else None


class ReportData:
    """A study or a run as its report sees it.

    Args:
        folder: ``<results>/<data set>/<study>``.

    Raises:
        UsageError: no study there, one without an ended trial, or one of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.study = Study(folder)
        self.folder, self.record = folder, self.study.record
        space: Mapping[str, Any] = self.record["space"]
        self.space = space
        self.metric, self.highest_is_best = str(space["metric"]), space["mode"] != "min"
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
        """The trials that count, the best first."""
        rows = self.trials[(self.trials.state == COMPLETE) & self.trials[self.metric].notna()]
        return rows.reset_index(drop=True)

    @cached_property
    def best(self) -> Any:
        """The best trial's row, or None."""
        return self.complete.iloc[0] if len(self.complete) else None

    @cached_property
    def published(self) -> Any:
        """The row of trial 0 of a search, which has the published settings; None without it."""
        first = self.trials[self.trials.number == 0]
        return first.iloc[0] if len(first) and not self.is_run else None

    @cached_property
    def is_run(self) -> bool:
        """Whether this is a single run (``bbam-ray train``), without a search."""
        return self.record.get("num_samples") == 1 and not self.space.get("parameters")

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row per trial and epoch, running trials included."""
        return self.study.history

    @cached_property
    def best_labels(self) -> pd.DataFrame:
        """Rows per epoch and label of the best trial; empty without one."""
        labels: pd.DataFrame = self.study.labels
        if self.best is None or labels.empty:
            return pd.DataFrame()
        mine: pd.DataFrame = labels[labels.number == self.best.number]
        return mine.sort_values("epoch", kind="stable")

    @cached_property
    def confirm(self) -> list[dict[str, Any]]:
        """Rows of the confirmation."""
        rows: list[dict[str, Any]] = self.study.confirm.to_dict("records")  # type: ignore[assignment]
        return rows

    @cached_property
    def settings(self) -> list[Setting]:
        """The searched settings, as the space or else the columns of the trials tell them."""
        known = self.space.get("parameters") or {}
        columns = [str(c) for c in self.trials if str(c).startswith("param_")]
        return [self._setting(c.removeprefix("param_"), known, self.trials[c]) for c in columns]

    def _setting(self, name: str, known: Mapping[str, Any], values: pd.Series) -> Setting:
        given = known.get(name)
        if given is not None and given.get("choices") is None:
            return Setting(name, None, given["low"], given["high"], bool(given.get("log")))
        bare = Setting(name)
        if given is not None:
            # The record holds an infinite choice as the text "inf".
            texts = tuple(bare.text(choice) for choice in given["choices"])
            return Setting(name, texts)
        if values.dtype == object or pd.api.types.is_string_dtype(values):
            return Setting(
                name, tuple(sorted({bare.text(v) for v in values if v == v and v is not None}))
            )
        return bare

    def chosen(self, name: str) -> Any:
        """A setting of the best trial, searched or fixed; None where nothing tells it."""
        column = f"param_{name}"
        if self.best is not None and column in self.best and pd.notna(self.best[column]):
            return self.best[column]
        fixed = {**(self.space.get("fixed") or {}), **self.record.get("settings", {})}
        return fixed.get(name)
