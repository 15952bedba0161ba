"""How users' folders of images are organised: which tables name the images, and where the files are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bbam_ray.data.formats.file_list import safe_relative
from bbam_ray.data.formats.image_sources import holds_images
from bbam_ray.data.formats.part_files import part_files, part_of_file, part_of_name
from bbam_ray.data.formats.tables import UserTable, read_user_table, readable_parquet
from bbam_ray.errors import UsageError, brief

IMAGE_COLUMN = "image"
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_TABLES = (".csv", ".tsv", ".jsonl")

Tables = list[tuple[UserTable, str | None]]


@dataclass(frozen=True)
class Layout:
    """How a folder is organised.

    Args:
        tables: path, part of all its rows (None: a column may give it) and folder of its files.
        in_parquet: whether the tables contain the images themselves.
    """

    tables: list[tuple[Path, str | None, Path]]
    in_parquet: bool = False

    @property
    def paths(self) -> list[Path]:
        """The tables."""
        return [path for path, _, _ in self.tables]


def find_root(data_dir: Path | None) -> Path:
    """The folder or Parquet file of the images; a UsageError if it is neither."""
    if data_dir is None:
        raise UsageError(
            "data set 'images' needs --data-dir: the folder (or Parquet file) with your images"
        )
    if not os.path.exists(data_dir):
        raise UsageError(f"--data-dir {data_dir}: no such folder or file")
    if data_dir.is_file() and data_dir.suffix != ".parquet":
        raise UsageError(f"--data-dir {data_dir}: give the folder with this file")
    return data_dir


def find_layout(root: Path) -> Layout:
    """Which layout a folder has; exactly one.

    Raises:
        UsageError: none, or two.
    """
    if root.is_file():
        return _with_bytes(Layout([(root, None, root.parent)], in_parquet=True))
    images = root / "images" if (root / "images").is_dir() else root
    layouts = [
        Layout([(root / name, None, images)])
        for name in ("labels.csv", "labels.tsv")
        if (root / name).is_file()
    ]
    names = [f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    if tables := [(root / name, None, root) for name in names if (root / name).is_file()]:
        layouts.append(Layout([*tables]))
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    parts = [
        (folder / name, part, folder)
        for part in ("train", "validation", "test")
        for folder in folders
        if part_of_name(folder.name) == part
        for name in names
        if (folder / name).is_file()
    ]
    if parts:
        layouts.append(Layout([*parts]))
    for folder in (root, root / "data"):
        paths = part_files(folder, (".parquet",)) if folder.is_dir() else []
        if files := [(path, part_of_file(path), folder) for path in paths]:
            layouts.append(_with_bytes(Layout([*files], in_parquet=True)))
    if not layouts and (paths := part_files(root, _TABLES)):
        alone = len(paths) == 1
        layouts.append(Layout([(p, None if alone else part_of_file(p), images) for p in paths]))
    if not layouts:
        raise UsageError(
            f"{root}: no table of images found; put labels.csv next to images/, metadata.csv, .jsonl or "
            ".parquet next to the images, or train.parquet with the columns image and labels"
        )
    if len(layouts) > 1:
        first, second = (layout.paths[0] for layout in layouts[:2])
        raise UsageError(f"{root}: both {first.name} and {second.relative_to(root)}; keep one")
    return layouts[0]


def _with_bytes(layout: Layout) -> Layout:
    """A layout of Parquet files; if all of their images are paths without bytes, one of image files."""
    return layout if not all(map(_paths_only, layout.paths)) else Layout(layout.tables)


def _paths_only(path: Path) -> bool:
    """Whether the images of a Parquet file are paths without bytes, as Hugging Face writes them."""
    with readable_parquet(path), pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
        if IMAGE_COLUMN not in schema.names:
            return False
        kind = schema.field(IMAGE_COLUMN).type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return True
        is_pair = (
            pa.types.is_struct(kind) and min(map(kind.get_field_index, ("bytes", "path"))) >= 0
        )
        if not is_pair or not metadata.num_rows:
            return False
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                if chunk.path_in_schema == f"{IMAGE_COLUMN}.bytes":
                    counts = chunk.statistics
                    if counts is None or not counts.has_null_count or counts.num_values:
                        return False
    return True


def read_tables(layout: Layout) -> Tables:
    """The tables with the part of all their rows; images inside Parquet are not read.

    Raises:
        UsageError: a table cannot be read, or has no images.
    """
    if not layout.in_parquet:
        return [(_with_paths(read_user_table(path)), part) for path, part, _ in layout.tables]
    tables = [(read_user_table(path, (IMAGE_COLUMN,)), part) for path, part, _ in layout.tables]
    for table, _ in tables:
        if (kind := table.skipped.get(IMAGE_COLUMN)) is None:
            raise UsageError(
                f"{table.path}: no column '{IMAGE_COLUMN}' with the bytes of images; add it, or name it so"
            )
        if not holds_images(kind):
            raise UsageError(
                f"{table.path}: column '{IMAGE_COLUMN}' is {brief(str(kind))}; expected the bytes of "
                "images"
            )
    return tables


def _with_paths(table: UserTable) -> UserTable:
    """A table whose column of images, if they are pairs of bytes and path, has the paths alone."""
    column: Any = table.columns.get(IMAGE_COLUMN)
    if isinstance(column, pa.ChunkedArray) and pa.types.is_struct(column.type):
        table.columns[IMAGE_COLUMN] = pc.struct_field(column, "path")
    return table


def listed_files(
    tables: Tables, layout: Layout, file_column: str, file_template: str
) -> dict[Path, str]:
    """The file of each row of the tables, in order, with the row's position for messages.

    Args:
        tables, layout: as read.
        file_column: column of file names; "" = the first of the usual ones.
        file_template: path with {} in place of the name, relative to the folder of the table; "" = the
            name is the path.

    Raises:
        UsageError: no such column, a file in two rows, or one outside the folder.
    """
    columns = (file_column,) if file_column else FILE_COLUMNS
    files: dict[Path, str] = {}
    for (table, _), (_, _, folder) in zip(tables, layout.tables, strict=True):
        column = next((name for name in columns if name in table.columns), None)
        if column is None:
            raise UsageError(
                f"{table.path}: no column of file names; name it file_name, or choose it with --set "
                f"file_column=... (columns: {brief(', '.join(table.columns), 300)})"
            )
        for row, name in enumerate(table.values(column)):
            if file_template and name is not None:
                path = table.path.parent / safe_relative(
                    file_template.replace("{}", str(name)), table.where(row)
                )
            else:
                path = folder / safe_relative(name, table.where(row))
            if path in files:
                raise UsageError(
                    f"{table.where(row)}: duplicate file '{brief(name)}', already listed in "
                    f"{files[path]}; give each file one row"
                )
            files[path] = table.where(row)
    return files
