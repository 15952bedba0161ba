"""Repair a study before it is resumed: damaged files are replaced by their previous versions, and parts of
tables are merged into their files.

Nothing is deleted: a damaged file is kept as ``<name>.damaged``. Each finding is a sentence: what was
damaged, and what is lost.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bbam_ray.documents import parse_json
from bbam_ray.errors import NewerVersionError, UsageError
from bbam_ray.files import PREVIOUS, atomic_file
from bbam_ray.results.merging import merge_parts, write_table
from bbam_ray.results.parquet_files import read_parquet
from bbam_ray.results.parts import FOLDER, newer_parts, part_path, read_table
from bbam_ray.results.patience import Patience

_TABLES = ("labels", "folds", "history", "trials", "confirm")
# Temporary files of ``atomic_file``, and the journal of SQLite next to one.
_TEMPORARY = re.compile(r"\.{1,2}[a-z0-9]+\.(?:parquet|json|yaml|html|db)\.\d+(?:-journal)?")


def repair_study(folder: Path) -> list[str]:
    """Repair the files of a study or run, so that it can be resumed. The caller holds its lock.

    Damaged tables are replaced by their previous versions. Then trials with missing epochs are removed, so
    that they are trained again. Files that follow from the tables (``study.db``, ``best.yaml``, the
    report) are rebuilt when the study ends.

    Args:
        folder: ``<results>/<data set>/<study>``.

    Returns:
        A sentence for each finding; empty if all files are in order.

    Raises:
        UsageError: ``study.json`` and its previous version are both damaged, or there is no study.
        NewerVersionError: a table was written by a newer version of this program.
    """
    _remove_temporary_files(folder)
    findings = _repair_record(folder / "study.json")
    for name in _TABLES:
        findings += repair_table(folder / f"{name}.parquet")
    split = folder / "split.parquet"
    if split.exists() and not _readable(split):
        _keep_damaged(split)
        split.unlink()
        findings.append(
            f"{split} was damaged and is rebuilt from the data; changes of the data since the study began "
            "cannot be detected"
        )
    return findings + _drop_incomplete(folder)


def _remove_temporary_files(folder: Path) -> None:
    """Remove unfinished files of processes that were killed."""
    for parent in (folder, folder / PREVIOUS, *(folder / FOLDER).glob("*")):
        for path in parent.glob(".*"):
            if path.is_file() and _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _keep_damaged(path: Path) -> None:
    """Keep a damaged file under an unused name as well; its own name is reused by the caller."""
    for index in range(1000):
        copy = path.with_name(f"{path.name}.damaged{index or ''}")
        if not os.path.lexists(copy):
            break
        if copy.samefile(path):  # from an earlier repair that was interrupted
            return
    try:
        copy.hardlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, copy)


def _readable(path: Path) -> bool:
    try:
        read_parquet(path)
    except NewerVersionError:
        raise
    except UsageError:
        return False
    return True


def repair_table(path: Path) -> list[str]:
    """Repair one table, also one that does not belong to a study, and merge its parts into its file.

    Returns:
        A sentence for each file that was damaged.
    """
    findings = _repair_file(path)
    for number in newer_parts(path):
        part = part_path(path, number)
        if not _readable(part):
            _keep_damaged(part)
            part.unlink()
            findings.append(f"{part} was damaged and its rows are lost")
    Patience(path.parent).insist(lambda: merge_parts(path))
    return findings


def _repair_file(path: Path) -> list[str]:
    """Repair the file of a table; the parts that its previous version lacks are still stored."""
    previous = path.parent / PREVIOUS / path.name
    exists = os.path.lexists(path)
    if (exists and _readable(path)) or (not exists and not previous.exists()):
        return []
    problem = "damaged" if exists else "missing"
    if exists:
        _keep_damaged(path)
    if previous.exists() and _readable(previous):
        _restore(path, previous)
        return [f"{path} was {problem} and is restored from its previous version"]
    for lost in (path, previous):  # last, so that an interrupted repair is repeated
        lost.unlink(missing_ok=True)
    return [f"{path} was {problem} and its rows are lost"]


def _restore(path: Path, previous: Path) -> None:
    def copy() -> None:
        with atomic_file(path) as temporary:
            shutil.copyfile(previous, temporary)

    Patience(path.parent).insist(copy)


def _repair_record(path: Path) -> list[str]:
    previous = path.parent / PREVIOUS / path.name
    if _is_record(path):
        return []
    if not os.path.lexists(previous) and not os.path.lexists(path):
        raise UsageError(f"{path}: there is no study; check --name and --results")
    if not _is_record(previous):
        raise UsageError(
            f"{path} is damaged and has no previous version: the configuration of the study is lost; its "
            "tables are still readable, start the search again under another --name"
        )
    if os.path.lexists(path):
        _keep_damaged(path)
    _restore(path, previous)
    return [f"{path} was damaged and is restored from its previous version"]


def _is_record(path: Path) -> bool:
    if not path.is_file():  # reading a pipe would block
        return False
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("schema_version"), int)


def _drop_incomplete(folder: Path) -> list[str]:
    """Remove the trials whose epochs or labels are incomplete."""
    path = folder / "trials.parquet"
    if not path.exists():
        return []
    trials = read_table(path)
    epochs = _rows_by_epoch(folder / "history.parquet")
    labels = _rows_by_epoch(folder / "labels.parquet")
    # All epochs have the same labels, so as many rows as most epochs have. Trials that were running may
    # be one epoch further in one table than in the other.
    sizes = Counter(rows for by_epoch in labels.values() for rows in by_epoch.values())
    per_epoch = sizes.most_common(1)[0][0] if sizes else 1

    def is_complete(number: int, count: int) -> bool:
        rows = epochs.get(number, {})
        return len(rows) == count and labels.get(number, {}) == dict.fromkeys(rows, per_epoch)

    ended = zip(trials["number"].to_pylist(), trials["epochs"].to_pylist(), strict=True)
    incomplete = {number for number, count in ended if not is_complete(number, count or 0)}
    lost = sorted(incomplete | _without_folds(folder, trials))
    if not lost:
        return []
    complete = trials.filter(pc.invert(pc.is_in(trials["number"], pa.array(lost, pa.int64()))))
    Patience(folder).insist(lambda: write_table(path, complete))
    return [f"epochs of {_ranges(lost)} are lost: they are trained again"]


def _without_folds(folder: Path, trials: pa.Table) -> set[int]:
    """Numbers of the trials with several folds whose rows by fold are incomplete."""
    if "folds" not in trials.column_names:  # of an older version
        return set()
    path = folder / "folds.parquet"
    known: dict[int, set[int]] = {}
    if path.exists():
        rows = read_table(path).select(["number", "fold"]).to_pylist()
        for row in rows:
            known.setdefault(row["number"], set()).add(row["fold"])
    counts = zip(trials["number"].to_pylist(), trials["folds"].to_pylist(), strict=True)
    return {n for n, folds in counts if (folds or 1) > 1 and len(known.get(n, ())) < folds}


def _rows_by_epoch(path: Path) -> dict[int, dict[int, int]]:
    """Number of rows by trial and epoch."""
    if not path.exists():
        return {}
    table = read_table(path).select(["number", "epoch"])
    counts = table.group_by(["number", "epoch"]).aggregate([([], "count_all")])
    by_trial: dict[int, dict[int, int]] = {}
    for row in counts.to_pylist():
        by_trial.setdefault(row["number"], {})[row["epoch"]] = row["count_all"]
    return by_trial


def _ranges(numbers: Iterable[int]) -> str:
    """Ascending trial numbers in words, consecutive ones as a range: ``trials 0-3, 7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in spans]
    return f"trial{'s' * (len(texts) > 1 or '-' in texts[0])} {', '.join(texts)}"
