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
    store.history.put([row])
    if HISTOGRAMS[0] in labels:
        if _is_last(store, row):
            store.labels.clear(row["number"], HISTOGRAMS)
        else:
            labels = {name: values for name, values in labels.items() if name not in HISTOGRAMS}
    store.labels.put(
        dict(identity)
        | {"epoch": row["epoch"], "label": name}
        | {column: values[index] for column, values in labels.items()}
        for index, name in enumerate(label_names)
    )
    return row


def _is_last(store: StudyStore, row: Row) -> bool:
    """Whether an epoch is the last one so far of its trial, among those with histograms."""
    number, epoch = row["number"], row["epoch"]
    if store.histogram_epochs.get(number, 0) > epoch:
        return False
    store.histogram_epochs[number] = epoch
    return True
