"""From an epoch's record to rows of ``history.parquet`` and ``labels.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bbam_ray.results.store import Row, StudyStore


def put_epoch(
    store: StudyStore,
    identity: Row,
    scalars: Mapping[str, Any],
    labels: Mapping[str, Sequence[float]],
    label_names: Sequence[str],
) -> Row:
    """Add one epoch of one trial to the store, without writing it; an epoch that is there is replaced.

    Args:
        identity: study, trial_id and number.
        scalars: columns of the history, with ``epoch``.
        labels: columns of the label table, each with a value per label.
        label_names: K names.

    Returns:
        The row of the history.
    """
    row = dict(identity) | dict(scalars)
    store.history.put([row])
    store.labels.put(
        dict(identity)
        | {"epoch": row["epoch"], "label": name}
        | {column: values[place] for column, values in labels.items()}
        for place, name in enumerate(label_names)
    )
    return row
