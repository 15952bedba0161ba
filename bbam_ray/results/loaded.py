"""A study or a run that was stored, for Python and notebooks: its tables, its best settings, a summary."""

from __future__ import annotations

import os
from datetime import datetime
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError, quoted, shown
from bbam_ray.results import schemas
from bbam_ray.results.remote import local_copy
from bbam_ray.results.store import read_table
from bbam_ray.results.study import StudyRecord
from bbam_ray.results.summary import confirmed_figures

#: schema and columns that no row may lack, of each table
_TABLES: dict[str, tuple[pa.Schema, tuple[str, ...]]] = {
    "trials": (schemas.trials_schema({}), ("number", "state")),
    "history": (schemas.HISTORY, ("number", "epoch")),
    "labels": (schemas.LABELS, ("number", "epoch", "label")),
    "confirm": (schemas.confirm_schema({}), ("number",)),
    "split": (schemas.SPLIT, ("index",)),
}
#: of a column ``param_*``
_SCALAR = pa.null()
_KINDS = (
    *(pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_string),
    pa.types.is_null,
)


class _Part(BaseModel):
    """What is read here of a part of ``study.json``; there may be more in it."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Parameter(_Part):
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    log: bool | None = None
    choices: list[bool | int | float | str] | None = None

    @model_validator(mode="after")
    def _has_a_range(self) -> _Parameter:
        if self.choices is None:
            if self.low is None or self.high is None or self.low > self.high:
                raise ValueError("neither choices nor a range")
            if self.log and self.low <= 0:
                raise ValueError("a logarithmic range that begins at 0")
        return self


class _Space(_Part):
    metric: str
    mode: Literal["max", "min"]
    also: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    parameters: dict[str, _Parameter] | None = None
    fixed: dict[str, Any] | None = None


class _Environment(_Part):
    packages: dict[str, str | None]
    python: str
    cpu_count: int | None
    gpu: str | None
    git_commit: str | None


class _Confirm(_Part):
    top: int | None = Field(None, ge=0, lt=2**31)
    seeds: int | None = Field(None, ge=0, lt=2**31)


class _Pace(_Part):
    labeled_fraction: float | None = Field(None, allow_inf_nan=False)


class _Content(_Part):
    study: str
    dataset: str
    method: str
    status: str
    num_samples: int | None = Field(None, ge=0, lt=2**31)
    space: _Space
    settings: dict[str, Any] = {}
    environment: _Environment | None = None
    command: str = ""
    lag: int | None = Field(None, lt=2**31)
    confirm: _Confirm | None = None
    pace: _Pace | None = None
    started_at: str | None = None
    ended_at: str | None = None

    @field_validator("started_at", "ended_at")
    @classmethod
    def _is_a_time(cls, text: str | None) -> str | None:
        if text is not None and datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("a time without a zone")
        return text


class Study:
    """What a study's folder holds; the tables are read when they are first asked for.

    Args:
        folder: ``<results>/<data set>/<study>``.

    Raises:
        UsageError: there is no study, or a damaged one.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "study.json").is_file():
            raise UsageError(f"{self.folder}: there is no study; give <results>/<data set>/<study>")
        self.record: dict[str, Any] = StudyRecord.open(self.folder).content
        try:
            _Content(**self.record)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            what = (
                f"{shown(where)} = {quoted(first['input'])} is not possible: {shown(first['msg'])}"
            )
            if first["type"] == "missing":
                what = f"no entry '{shown(where)}'"
            raise UsageError(
                f"{self.folder / 'study.json'}: {what}; copy the study again"
            ) from None

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
        table, (schema, needed) = read_table(path), _TABLES[name]
        for place, column in enumerate(table.schema):
            known = schema.field(column.name).type if column.name in schema.names else None
            expected = known or (_SCALAR if column.name.startswith("param_") else column.type)
            fits = column.type == expected or pa.types.is_null(column.type)
            if expected is _SCALAR:
                fits = any(is_kind(column.type) for is_kind in _KINDS)
            if not fits or column.name in table.column_names[:place]:
                raise UsageError(
                    f"{path}: column '{shown(column.name)}' is {shown(str(column.type))} or there "
                    "twice, which no study has; copy it again"
                )
        for column in schema:
            if column.name not in table.column_names:  # of an older version
                table = table.append_column(column, pa.nulls(len(table), column.type))
        for one in needed:
            if table.column(one).null_count:
                raise UsageError(f"{path}: a row without '{one}'; copy it again")
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
                    f"{self.folder / 'study.json'}: space.metric names {quoted(name)}, which is no "
                    "measure of its trials; copy the study again"
                )
        ascending = self.record["space"]["mode"] == "min"
        rank = table["state"].map({"COMPLETE": 0, "PRUNED": 1, "FAILED": 2})
        order = table.assign(_rank=rank).sort_values(
            ["_rank", self.metric, "number"], ascending=[True, ascending, True]
        )
        return order.drop(columns="_rank").reset_index(drop=True)

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row per trial and epoch."""
        return self._table("history")

    @cached_property
    def labels(self) -> pd.DataFrame:
        """A row per trial, epoch and label."""
        return self._table("labels")

    @cached_property
    def confirm(self) -> pd.DataFrame:
        """A row per confirmed configuration and seed: the only figures of the test part."""
        return self._table("confirm")

    @cached_property
    def split(self) -> pd.DataFrame:
        """A row per training sample: labeled, validation or unlabeled in the runs of the search."""
        return self._table("split")

    @cached_property
    def best(self) -> dict[str, Any]:
        """Settings of the best configuration, as in ``best.yaml``; for a single run, its own."""
        path = self.folder / "best.yaml"
        return read_yaml_mapping(path) if path.exists() else dict(self.record["settings"])

    def summary(self) -> list[str]:
        """The study in a few lines."""
        lines = [
            f"study {self.name}: {self.record['method']} on {self.record['dataset']}, {self.status}, "
            f"{len(self.trials)} of {self.record.get('num_samples') or len(self.trials)} trials"
        ]
        if len(self.trials) and self.trials["state"].iloc[0] == "COMPLETE":
            top = self.trials.iloc[0]
            lines.append(f"best: trial {top['number']}, {self.metric} {top[self.metric]:.4f}")
            searched = [n for n in top.index if n.startswith("param_") and pd.notna(top[n])]
            if searched:
                values = (f"{n.removeprefix('param_')}={top[n]}" for n in searched)
                lines.append("  " + " ".join(values))
        rows = self.confirm.to_dict("records") if len(self.confirm) else []
        for figure in confirmed_figures(rows):  # type: ignore[arg-type]
            spread = "" if figure.deviation is None else f" +- {figure.deviation:.4f}"
            lines.append(
                f"confirmed: trial {figure.number}, test mAP {figure.mean:.4f}{spread} over "
                f"{figure.seeds} seed{'s' * (figure.seeds > 1)}"
            )
        return [*lines, f"files: {self.folder}"]

    def __repr__(self) -> str:
        return "\n".join(self.summary())

    def _repr_html_(self) -> str:
        columns = ["number", "state", self.metric, "best_epoch", "epochs", "duration_s"]
        table = self.trials
        shown = table[[c for c in table if c in columns or str(c).startswith("param_")]].head(10)
        lines = "<br>".join(escape(line) for line in self.summary())
        return f"<p>{lines}</p>{shown.to_html(index=False, float_format='{:.4g}'.format)}"


def load_study(folder: Path | str) -> Study:
    """Open a study or run, also one that is still running.

    Args:
        folder: ``<results>/<data set>/<study>``, also on object storage (s3:// and so on).
    """
    return Study(local_copy(folder))
