"""Check that ``study.json`` and the tables of a study have the expected entries and types."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bbam_ray.errors import UsageError, brief, quoted
from bbam_ray.results import schemas
from bbam_ray.results.store import read_table

#: By table: its schema, and the columns that must not be null.
_TABLES: dict[str, tuple[pa.Schema, tuple[str, ...]]] = {
    "trials": (schemas.trials_schema({}), ("number", "state")),
    "history": (schemas.HISTORY, ("number", "epoch")),
    "folds": (schemas.FOLDS, ("number", "fold", "epoch")),
    "labels": (schemas.LABELS, ("number", "epoch", "label")),
    "confirm": (schemas.confirm_schema({}), ("number",)),
    "split": (schemas.SPLIT, ("index",)),
}
#: Stands for the types that a column ``param_*`` may have.
_SCALAR = pa.null()
_IS_SCALAR = (
    *(pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_string),
    pa.types.is_null,
)


class _Part(BaseModel):
    """The checked entries of a part of ``study.json``; others are allowed."""

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
                raise ValueError("a logarithmic range must start above 0")
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
            raise ValueError("a time without a time zone")
        return text


def check_record(path: Path, content: dict[str, Any]) -> None:
    """Raise a UsageError for a missing or invalid entry of ``study.json``."""
    try:
        _Content(**content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{brief(where)} = {quoted(first['input'])} is invalid: {brief(first['msg'])}"
        if first["type"] == "missing":
            what = f"no entry '{brief(where)}'"
        raise UsageError(f"{path}: {what}; copy the study again") from None


def checked_table(path: Path, name: str) -> pa.Table:
    """Read a table of a study and check its types; columns that an older version did not write are null.

    Raises:
        UsageError: a column of another type, a duplicate column, or a row without its key.
    """
    table, (schema, required) = read_table(path), _TABLES[name]
    for index, column in enumerate(table.schema):
        known = schema.field(column.name).type if column.name in schema.names else None
        expected = known or (_SCALAR if column.name.startswith("param_") else column.type)
        fits = column.type == expected or pa.types.is_null(column.type)
        if expected is _SCALAR:
            fits = any(is_type(column.type) for is_type in _IS_SCALAR)
        if not fits or column.name in table.column_names[:index]:
            raise UsageError(
                f"{path}: column '{brief(column.name)}' has the wrong type {brief(str(column.type))} or "
                "is a duplicate; copy it again"
            )
    for column in schema:
        if column.name not in table.column_names:  # an older version
            table = table.append_column(column, pa.nulls(len(table), column.type))
    for column_name in required:
        if table.column(column_name).null_count:
            raise UsageError(f"{path}: a row without '{column_name}'; copy it again")
    return table
