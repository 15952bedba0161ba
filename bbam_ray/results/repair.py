"""A study's folder made whole before it goes on: damaged files give way to their versions before.

Nothing is deleted: what cannot be read stays beside its place as ``<name>.damaged``. Every finding is a
sentence that says what was wrong and what is lost.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError
from bbam_ray.results.files import PREVIOUS, write_whole
from bbam_ray.results.patience import Patience
from bbam_ray.results.store import read_table, write_table

_TABLES = ("labels", "history", "trials", "confirm")
# Temporary files of ``write_whole``, and what SQLite keeps beside one.
_LITTER = re.compile(r"\.[a-z]+\.(?:parquet|json|yaml|html|db)\.\d+(?:-journal)?")


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
        found += repair_table(folder / f"{name}.parquet")
    split = folder / "split.parquet"
    if split.exists() and not _readable(split):
        _keep_damaged(split)
        split.unlink()
        found.append(
            f"{split} was damaged and is made anew from the data; whether they have changed since the "
            "study began cannot be told"
        )
    return found + _drop_incomplete(folder)


def _remove_litter(folder: Path) -> None:
    """What processes that were killed have left half-written."""
    for place in (folder, folder / PREVIOUS):
        for path in place.glob(".*"):
            if path.is_file() and _LITTER.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _keep_damaged(path: Path) -> None:
    """Let a damaged file stay under a free name as well; its own place is still to be filled."""
    for place in range(1000):
        aside = path.with_name(f"{path.name}.damaged{place or ''}")
        if not os.path.lexists(aside):
            break
        if aside.samefile(path):  # an earlier try that was broken off
            return
    try:
        aside.hardlink_to(path)
    except OSError:  # no links here
        shutil.copyfile(path, aside)


def _readable(path: Path) -> bool:
    try:
        read_table(path)
    except UsageError as error:
        if "is newer than" in str(error):  # that is no damage
            raise
        return False
    return True


def repair_table(path: Path) -> list[str]:
    """The same for one table, also one that does not belong to a study."""
    kept = path.parent / PREVIOUS / path.name
    there = os.path.lexists(path)
    if (there and _readable(path)) or (not there and not kept.exists()):
        return []
    was = "damaged" if there else "missing"
    if there:
        _keep_damaged(path)
    if kept.exists() and _readable(kept):
        _insist(path, lambda: write_whole(path, partial(shutil.copyfile, kept)))
        return [f"{path} was {was} and is now as it was before it was last written"]
    for lost in (path, kept):  # last of all, so that a repair that is broken off comes here again
        lost.unlink(missing_ok=True)
    return [f"{path} was {was} and its rows are lost"]


def _insist(path: Path, write: Callable[[], object]) -> None:
    Patience(path.parent).insist(write)


def _repair_record(path: Path) -> str | None:
    kept = path.parent / PREVIOUS / path.name
    if _is_record(path):
        return None
    if not os.path.lexists(kept) and not os.path.lexists(path):
        raise UsageError(f"{path}: there is no study; check --name and --results")
    if not _is_record(kept):
        raise UsageError(
            f"{path} is damaged and there is no version before it: what the study was asked for is lost; "
            "its tables can still be read, and the search begun again under another --name"
        )
    if os.path.lexists(path):
        _keep_damaged(path)
    _insist(path, lambda: write_whole(path, partial(shutil.copyfile, kept)))
    return f"{path} was damaged and is now as it was before it was last written"


def _is_record(path: Path) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("schema_version"), int)


def _drop_incomplete(folder: Path) -> list[str]:
    """Take out the trials whose epochs or labels are not all there."""
    path = folder / "trials.parquet"
    if not path.exists():
        return []
    trials = read_table(path)
    epochs = _rows_by_epoch(folder / "history.parquet")
    labels = _rows_by_epoch(folder / "labels.parquet")
    # A study has one set of labels: as many rows of each epoch as most epochs have. Trials that still run
    # may be an epoch further in one table than in the other.
    sizes = Counter(rows for mine in labels.values() for rows in mine.values())
    per_epoch = sizes.most_common(1)[0][0] if sizes else 1

    def whole(number: int, count: int) -> bool:
        mine = epochs.get(number, {})
        return len(mine) == count and labels.get(number, {}) == dict.fromkeys(mine, per_epoch)

    ended = zip(trials["number"].to_pylist(), trials["epochs"].to_pylist(), strict=True)
    lost = sorted(number for number, count in ended if not whole(number, count or 0))
    if not lost:
        return []
    kept = trials.filter(pc.invert(pc.is_in(trials["number"], pa.array(lost, pa.int64()))))
    _insist(path, lambda: write_table(path, kept))
    return [f"epochs of {_named(lost)} are lost with them: trained again"]


def _rows_by_epoch(path: Path) -> dict[int, dict[int, int]]:
    """How many rows each trial has of each epoch."""
    if not path.exists():
        return {}
    table = read_table(path).select(["number", "epoch"])
    counts = table.group_by(["number", "epoch"]).aggregate([([], "count_all")])
    found: dict[int, dict[int, int]] = {}
    for row in counts.to_pylist():
        found.setdefault(row["number"], {})[row["epoch"]] = row["count_all"]
    return found


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
