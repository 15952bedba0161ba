"""Store an epoch: a row of ``history.parquet``, and a row of ``labels.parquet`` for each label."""

from __future__ import annotations

import math
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

    Only the best epoch of a trial keeps its angle histograms (``schemas.HISTOGRAMS``).

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
        if _is_best(store, row):
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


def _is_best(store: StudyStore, row: Row) -> bool:
    """Whether an epoch is the best so far of its trial, among those with histograms; the first of equals.

    If no epoch has a value of the objective, the last one counts as the best. A trial that is resumed
    from a checkpoint stores epochs again. Then later epochs do not count: they will be stored again too.
    """
    number, epoch, value = row["number"], row["epoch"], row.get(store.metric)
    if value is not None:
        value = None if math.isnan(value) else value if store.mode == "max" else -value
    best_epoch, best = store.best_epochs.get(number, (epoch, None))
    if best_epoch < epoch and best is not None and (value is None or value <= best):
        return False
    store.best_epochs[number] = epoch, value
    return True
