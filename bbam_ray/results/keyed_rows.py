"""Rows of Arrow tables with a key: of two rows with the same key, the newer one counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with exactly the columns of a schema; missing ones are null."""
    if table.schema.equals(schema):
        return table.replace_schema_metadata(schema.metadata)
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def sort(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """The rows of a table, ordered by key."""
    return table.sort_by([(name, "ascending") for name in key])


def latest(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """The last row of each key."""
    rows = {values: row for row, values in enumerate(_keys(table, key))}
    return table if len(rows) == len(table) else table.take(list(rows.values()))


def without(table: pa.Table, newer: pa.Table, key: Sequence[str]) -> pa.Table:
    """The rows of a table whose key is not in a newer one."""
    groups = pc.unique(newer[key[0]])
    rows = np.flatnonzero(pc.is_in(table[key[0]], value_set=groups).to_numpy())
    if not len(rows):
        return table
    replaced = set(_keys(newer, key))
    keep = np.ones(len(table), bool)
    keep[rows] = [values not in replaced for values in _keys(table.select(key).take(rows), key)]
    return table.filter(pa.array(keep))


def without_groups(table: pa.Table, column: str, groups: Collection[Any]) -> pa.Table:
    """The rows of a table that belong to none of some groups."""
    if not groups:
        return table
    values = pa.array(list(groups), table.schema.field(column).type)
    return table.filter(pc.invert(pc.is_in(table[column], value_set=values)))


def _keys(table: pa.Table, key: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in key), strict=True))
