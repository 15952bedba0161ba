"""Store an epoch: a row of ``history.parquet``, and a row of ``labels.parquet`` for each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bbam_ray.results.schemas import HISTOGRAMS
from bbam_ray.results.store import Row, StudyStore


def put_epoch(
    store: StudyStore,
    identity: Row,
    scalars: Mapping[str, Any],
    labels: Mapping[str, Sequence[Any]],
    label_names: Sequence[str],
) -> Row:
    """Add an epoch of a trial to the store, without writing it; replaces the same epoch.

    Only the last epoch of a trial keeps its angle histograms (``schemas.HISTOGRAMS``).

    Args:
        identity: study, trial_id and number.
        scalars: columns of the history, including ``epoch``.
        labels: columns of the label table, each with K values.
        label_names: K names.

    Returns:
        The row of the history.

    Raises:
        UsageError: a column that the schemas do not have.
    """
    row = dict(identity) | dict(scalars)
    number, epoch = row["number"], row["epoch"]
    store.history.put([row])
    if number not in store.histograms:
        stored = store.labels.rows_of(number)  # by an earlier process
        store.histograms[number] = 0, [row for row in stored if row[HISTOGRAMS[0]] is not None]
    last, rows_of_last = store.histograms[number]
    is_last = HISTOGRAMS[0] in labels and last <= epoch
    if is_last:
        store.labels.put(row | dict.fromkeys(HISTOGRAMS) for row in rows_of_last)
    else:
        labels = {name: values for name, values in labels.items() if name not in HISTOGRAMS}
    rows = [
        dict(identity)
        | {"epoch": epoch, "label": name}
        | {column: values[index] for column, values in labels.items()}
        for index, name in enumerate(label_names)
    ]
    store.labels.put(rows)
    if is_last:
        store.histograms[number] = epoch, rows
    return row
