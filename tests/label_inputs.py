"""Tables of labels for tests: written in each file format, read by the reader of labels alone."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.formats.labels.names import NAMES_FILE
from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.data.formats.labels.reader import read_labels
from bbam_ray.data.formats.labels.result import Labels
from bbam_ray.data.formats.tables import read_user_table

Columns = dict[str, list[Any]]


def write_table(path: Path, columns: Columns) -> Path:
    """Write columns in the format that the name of the file says."""
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        entries = [dict(zip(columns, row, strict=True)) for row in rows]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = [
            "\t".join(str(cell).replace("\n", " ") for cell in row)
            for row in [tuple(columns), *rows]
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        text = io.StringIO()
        csv.writer(text).writerows([tuple(columns), *rows])
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def labels_of(*paths: Path | tuple[Path, str | None], **options: Any) -> Labels:
    """Labels of one or several tables beside each other."""
    pairs = [path if isinstance(path, tuple) else (path, None) for path in paths]
    built = LabelOptions.build(options, "test")
    header = [name for name in built.column_names.split(",") if name]
    return read_labels(
        [(read_user_table(path, names=header), part) for path, part in pairs],
        built,
        ignored=("id", "text", "file_name"),
        names_file=pairs[0][0].parent / NAMES_FILE,
    )


def sets_of(labels: Labels) -> list[set[str] | None]:
    """The labels of each row as names; None for a row that is not labelled."""
    return [
        {name for name, mark in zip(labels.names, row, strict=True) if mark} if labeled else None
        for row, labeled in zip(labels.labels, labels.is_labeled, strict=True)
    ]
