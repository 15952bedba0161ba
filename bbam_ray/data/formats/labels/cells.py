"""Columns as codes of their distinct values, so that each value is understood once; rows of all tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bbam_ray.data.formats.tables import Column, UserTable, python_values
from bbam_ray.errors import UsageError, brief

#: kinds of values by the type that JSON gives; any other type is "other"
_KINDS: dict[type, str] = {str: "text", bool: "bool", int: "number", float: "number"}
_KINDS |= {list: "list", tuple: "list", set: "list", dict: "object"}


@dataclass(frozen=True)
class Coded:
    """A column of N values.

    Args:
        codes: (N,) int64 index into ``values``; -1 = null or NaN.
        values: the distinct values.
        kinds: of the values: "text", "bool", "number" or "other".
    """

    codes: np.ndarray
    values: list[Any]
    kinds: frozenset[str]

    def first(self, code: int) -> int:
        """The first position of a value."""
        return int(np.argmax(self.codes == code))


class Rows:
    """The rows of several tables, in order.

    Args:
        tables: at least one.
    """

    def __init__(self, tables: Sequence[UserTable]) -> None:
        self.tables = tables
        self._starts = np.cumsum([0, *map(len, tables)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def of_table(self, number: int) -> slice:
        """The rows of a table."""
        return slice(int(self._starts[number]), int(self._starts[number + 1]))

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.tables[number].where(row - int(self._starts[number]))

    def mask(self, of_tables: Sequence[bool]) -> np.ndarray:
        """(N,) bool, the rows of some tables."""
        return np.repeat(np.array(of_tables, bool), [len(table) for table in self.tables])

    def column(self, name: str, of_tables: Sequence[bool] | None = None) -> Column:
        """A column of all tables, or of some; null in the rows of others and of tables that lack it."""
        chosen = [True] * len(self.tables) if of_tables is None else of_tables
        parts: list[Any] = [
            table.columns[name]
            if own and name in table.columns
            else pa.chunked_array([pa.nulls(len(table))])
            for table, own in zip(self.tables, chosen, strict=True)
        ]
        types = {str(part.type) for part in parts if _has_type(part)}
        if len(types) <= 1 and not any(isinstance(part, list) for part in parts):
            kind = next((part.type for part in parts if _has_type(part)), pa.null())
            chunks = [chunk.cast(kind) for part in parts for chunk in part.chunks]
            return pa.chunked_array(chunks, kind)
        values: list[Any] = []
        for part, table in zip(parts, self.tables, strict=True):
            values += part if isinstance(part, list) else python_values(part, table.path, name)
        if float in set(map(type, values)):
            return [None if value != value else value for value in values]
        return values

    def values(self, name: str, column: Column) -> list[Any]:
        """The values of a column in Python."""
        if isinstance(column, list):
            return column
        return python_values(column, self.tables[0].path, name)


def _has_type(part: Column) -> bool:
    return not isinstance(part, list) and not pa.types.is_null(part.type)


def kinds_of(column: Column) -> frozenset[str]:
    """Kinds of the values of a column: "text", "bool", "number", "list", "object" or "other"."""
    if isinstance(column, list):
        present = {_KINDS.get(kind, "other") for kind in set(map(type, column)) - {type(None)}}
        return frozenset(present)
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or column.null_count == len(column):
        return frozenset()
    tests = (
        ("text", pa.types.is_string(kind) or pa.types.is_large_string(kind)),
        ("bool", pa.types.is_boolean(kind)),
        ("number", pa.types.is_integer(kind) or pa.types.is_floating(kind)),
        ("list", is_list(kind)),
        ("object", pa.types.is_struct(kind) or pa.types.is_map(kind)),
    )
    return frozenset([next((name for name, holds in tests if holds), "other")])


def is_list(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of any kind."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def coded(column: Column, rows: Rows, name: str) -> Coded:
    """The codes of a column of scalars.

    Args:
        column: without lists and objects.
        rows, name: for a message.
    """
    kinds = kinds_of(column)
    if isinstance(column, list):
        if float in set(map(type, column)):
            column = [None if value != value else value for value in column]
        positions: dict[Any, int] = {}
        codes = np.array(
            [-1 if v is None else positions.setdefault(v, len(positions)) for v in column], np.int64
        )
        return Coded(codes, list(positions), kinds)
    try:
        array = column.combine_chunks()
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_floating(array.type):
            array = pc.if_else(pc.is_nan(array), None, array)
        encoded = array.dictionary_encode()
    except (pa.ArrowException, NotImplementedError) as error:
        raise UsageError(
            f"{rows.tables[0].path}: column '{brief(name)}' is {brief(str(column.type))}, which "
            "is no "
            f"label ({brief(error)}); remove it"
        ) from None
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Coded(codes, python_values(encoded.dictionary, rows.tables[0].path, name), kinds)


def lists_of(column: Column) -> tuple[np.ndarray, Column]:
    """Length of each list of a column, -1 for null, and the items of all lists."""
    if isinstance(column, list):
        lengths = np.array([-1 if cell is None else len(cell) for cell in column], np.int64)
        return lengths, list(chain.from_iterable(cell for cell in column if cell is not None))
    array = pc.drop_null(column)
    lengths = np.full(len(column), -1, np.int64)
    valid = column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    lengths[valid] = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    return lengths, pc.list_flatten(array)
