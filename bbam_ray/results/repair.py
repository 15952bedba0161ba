"""A study's folder made whole before it goes on: damaged files give way to their versions before.

Nothing is deleted: what cannot be read stays beside its place as ``<name>.damaged``. Every finding is a
sentence that says what was wrong and what is lost.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bbam_ray.errors import UsageError
from bbam_ray.results.files import PREVIOUS, write_whole
from bbam_ray.results.store import read_table

_TABLES = ("labels", "history", "trials", "confirm")
_LITTER = re.compile(r"\.(.+)\.\d+")  # a temporary file of ``write_whole``


def repair_study(folder: Path) -> list[str]:
    """Make the files of a study or run fit to go on from; for the one process that holds the folder.

    Damaged tables are replaced by their versions before, then trials whose epochs are not all there are
    taken out, so that they are trained again. What is made from the tables (``study.db``, ``best.yaml``,
    the report) is made anew when the study ends.

    Args:
        folder: ``<results>/<data set>/<study>``.

    Returns:
        A sentence for each finding; none where all is well.

    Raises:
        UsageError: what was asked for is lost, both in ``study.json`` and in its version before.
    """
    _remove_litter(folder)
    found = [said for said in [_repair_record(folder / "study.json")] if said]
    for name in _TABLES:
        found += _repair_table(folder / f"{name}.parquet")
    split = folder / "split.parquet"
    if split.exists() and not _readable(split):
        _put_aside(split)
        found.append(
            f"{split} was damaged and is made anew from the data; whether they have changed since the "
            "study began cannot be told"
        )
    return found + _drop_incomplete(folder)


def repair_table(path: Path) -> list[str]:
    """The same for one table that does not belong to a study."""
    return _repair_table(path)


def _remove_litter(folder: Path) -> None:
    """What processes that were killed have left half-written."""
    for place in (folder, folder / PREVIOUS):
        for path in place.glob(".*"):
            if path.is_file() and _LITTER.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _put_aside(path: Path) -> Path:
    """Move a damaged file to a name that is free."""
    for place in range(1000):
        aside = path.with_name(f"{path.name}.damaged{place or ''}")
        if not aside.exists():
            break
    path.replace(aside)
    return aside


def _readable(path: Path) -> bool:
    try:
        read_table(path)
    except UsageError as error:
        if "is newer than" in str(error):  # that is no damage
            raise
        return False
    return True


def _repair_table(path: Path) -> list[str]:
    if not path.exists() or _readable(path):
        return []
    _put_aside(path)
    kept = path.parent / PREVIOUS / path.name
    if kept.exists() and _readable(kept):
        write_whole(path, partial(shutil.copyfile, kept))
        return [f"{path} was damaged and is now as it was before it was last written"]
    return [f"{path} was damaged and its rows are lost"]


def _repair_record(path: Path) -> str | None:
    kept = path.parent / PREVIOUS / path.name
    if _is_record(path):
        return None
    if not kept.exists() and not path.exists():
        raise UsageError(f"{path}: there is no study; check --name and --results")
    if not _is_record(kept):
        raise UsageError(
            f"{path} is damaged and there is no version before it: what the study was asked for is lost; "
            "its tables can still be read, and the search begun again under another --name"
        )
    if path.exists():
        _put_aside(path)
    write_whole(path, partial(shutil.copyfile, kept))
    return f"{path} was damaged and is now as it was before it was last written"


def _is_record(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("schema_version"), int)


def _drop_incomplete(folder: Path) -> list[str]:
    """Take out the trials whose epochs or labels are not all there."""
    paths = {name: folder / f"{name}.parquet" for name in _TABLES}
    if not paths["trials"].exists():
        return []
    trials = read_table(paths["trials"])
    epochs, labels = (_rows_by_number(paths[name]) for name in ("history", "labels"))
    expected = dict(zip(trials["number"].to_pylist(), trials["epochs"].to_pylist(), strict=True))
    # Every epoch has a row for each label; a study has one set of labels, and at least one.
    per_epoch = max((labels[n] / epochs[n] for n in labels if epochs.get(n)), default=1)
    lost = sorted(
        number
        for number, count in expected.items()
        if epochs.get(number, 0) != (count or 0)
        or labels.get(number, 0) != (count or 0) * per_epoch
    )
    if not lost:
        return []
    kept = trials.filter(pc.invert(pc.is_in(trials["number"], pa.array(lost, pa.int64()))))
    write_whole(paths["trials"], lambda path: pq.write_table(kept, path, compression="zstd"))
    return [f"epochs of {_named(lost)} are lost with them: trained again"]


def _rows_by_number(path: Path) -> dict[int, int]:
    """How many rows each trial has."""
    if not path.exists():
        return {}
    counts = pc.value_counts(read_table(path)["number"]).to_pylist()
    return {item["values"]: item["counts"] for item in counts}


def _named(numbers: Iterable[int]) -> str:
    """Trials by number, neighbours as a range: ``trials 0-3, 7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in spans]
    return f"trial{'s' * (len(texts) > 1 or '-' in texts[0])} {', '.join(texts)}"
