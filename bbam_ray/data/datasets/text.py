"""``text``: your own documents, as tables with a column ``text``.

One file (``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``), or a folder with ``train*`` and optionally
``validation*`` (or ``val*``, ``dev*``), ``test*`` and ``unlabeled*`` of these types. Labels as in tables
of images: one 0/1 column per label, or a single column ``labels``. A column ``split`` may name the part of
each row: train, validation, test or unlabeled. Without a test part, a share of the labelled rows becomes
one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.datasets.text_base import Documents, TextDataset, TextOptions
from bbam_ray.data.formats.labels.names import NAMES_FILE
from bbam_ray.data.formats.labels.options import LabelOptions, listed
from bbam_ray.data.formats.labels.reader import read_labels
from bbam_ray.data.formats.labels.result import with_notes, with_test_part
from bbam_ray.data.formats.part_files import part_files, part_of_file, unused_tables
from bbam_ray.data.formats.tables import UserTable, read_user_table
from bbam_ray.errors import UsageError, brief

TEXT, SUFFIXES = "text", (".csv", ".tsv", ".jsonl", ".parquet")
NAME_COLUMNS = ("id", "name", "file_name")


class OwnTextOptions(TextOptions, LabelOptions):
    """Options of the data set ``text``."""

    text_column: str = Field("text", min_length=1, description="Column of the texts in tables.")


class Text(TextDataset):
    """A user's own documents."""

    name: ClassVar[str] = "text"
    Options: ClassVar[type[DatasetOptions]] = OwnTextOptions
    defaults: ClassVar[dict[str, Any]] = {
        "backbone": "tiny-text",
        "labeled_fraction": None,
        "validation_fraction": 0.3,
        "epochs": 30,
        "warmup_epochs": 12,
        "warmup_passes": 3,
        "warmup_learning_rate": 2e-3,
        "learning_rate": 1e-3,
        "ema_decay": 0.99,
        "hidden_dim": 128,
        "feature_dim": 64,
    }

    def files(self, options: OwnTextOptions, data_dir: Path | None) -> list[Path]:
        tables = [path for path, _ in _tables(data_dir)]
        names = tables[0].parent / NAMES_FILE
        return [*tables, names] if names.is_file() else tables

    def read(self, options: OwnTextOptions, data_dir: Path | None) -> Documents:
        tables = [
            (read_user_table(path, names=listed(options.column_names)), part)
            for path, part in _tables(data_dir)
        ]
        texts = [text for table, _ in tables for text in texts_of(table, options.text_column)]
        names_file = tables[0][0].path.parent / NAMES_FILE
        labels = read_labels(
            tables, options, ignored=(options.text_column, *NAME_COLUMNS), names_file=names_file
        )
        column = next((name for name in NAME_COLUMNS if name in tables[0][0].columns), None)
        names = None
        if column and all(column in table.columns for table, _ in tables):
            names = [str(name) for table, _ in tables for name in table.values(column)]
            if len(set(names)) < len(names):
                names = None  # not unique, so not the names of samples
        if data_dir is not None and data_dir.is_dir():
            paths = [table.path for table, _ in tables]
            labels = with_notes(labels, unused_tables(data_dir, paths, SUFFIXES))
        return Documents(texts, with_test_part(labels, options.test_fraction), names)


def texts_of(table: UserTable, column: str) -> list[str]:
    """The column of texts; a UsageError if a row has no text."""
    if column not in table.columns:
        raise UsageError(
            f"{table.path}: no column '{column}' (columns: "
            f"{brief(', '.join(table.columns), 300) or 'none'}); add it, choose another "
            "with --set text_column=..., or use --set column_names=text,labels,... for a file without a "
            "header line"
        )
    texts = table.values(column)
    for row, value in enumerate(texts):
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{table.where(row)}: no text; fill it in or remove the row")
    return texts


def _tables(data_dir: Path | None) -> list[tuple[Path, str | None]]:
    """Tables, each with the part of all its rows (None: a column ``split`` may give it)."""
    if data_dir is None:
        raise UsageError(
            "data set 'text' needs --data-dir: a .csv, .tsv, .jsonl or .parquet file with a column "
            "'text', or a folder of them"
        )
    if not os.path.exists(data_dir):
        raise UsageError(f"--data-dir {data_dir}: no such folder or file")
    if data_dir.is_file():
        if data_dir.suffix not in SUFFIXES:
            raise UsageError(f"--data-dir {data_dir}: expected {', '.join(SUFFIXES)} or a folder")
        return [(data_dir, None)]
    tables = [(path, part_of_file(path)) for path in part_files(data_dir, SUFFIXES)]
    if not any(part == "train" for _, part in tables):
        raise UsageError(
            f"{data_dir}: contains no train.csv, .tsv, .jsonl or .parquet; give the file or "
            "folder with the texts"
        )
    # The rows of a single file may belong to several parts.
    return [(tables[0][0], None)] if len(tables) == 1 else list(tables)
