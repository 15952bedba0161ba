"""Inputs of a prediction: a folder of images, a Parquet file or an ``.npz`` file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.datasets.image_base import image_files
from bbam_ray.data.formats.image_range import AUTO
from bbam_ray.data.formats.image_sources import holds_images
from bbam_ray.data.formats.npz import array_names, check_size, names_of, open_arrays, read_array
from bbam_ray.data.prediction.chunks import Chunk, FilesChunk, NpzChunk, ParquetChunk
from bbam_ray.data.prediction.texts import text_chunks
from bbam_ray.errors import UsageError, brief

_FILES, _ROWS = 512, 8192  # samples of a chunk
_NAME_COLUMNS = ("file_name", "filename", "name", "path")


def find_chunks(
    source: Path,
    shape: tuple[int, ...],
    labels: Sequence[str],
    texts: bool = False,
    image_range: str = AUTO,
) -> list[Chunk]:
    """Divide the input of a prediction into chunks.

    Args:
        source: folder, ``.parquet`` or ``.npz`` file.
        shape: of one sample, as the model expects it.
        labels: of the model; if an ``.npz`` file has ``label_names``, they must be the same.
        texts: whether the model expects texts.
        image_range: setting of the model's training (see ``parse_range``).

    Raises:
        UsageError: no samples, another kind of file, or samples of another shape.
    """
    if texts:
        return text_chunks(source, shape)
    images = len(shape) > 1
    if source.is_dir():
        if not images:
            raise UsageError(
                f"--input {source}: the model expects feature vectors; give a .parquet or .npz file"
            )
        names = sorted(path.relative_to(source).as_posix() for path in image_files(source))
        if not names:
            raise UsageError(f"--input {source}: no image in this folder; give one with images")
        parts = [tuple(names[start : start + _FILES]) for start in range(0, len(names), _FILES)]
        return [
            FilesChunk(source, shape, len(part), part, image_range=image_range) for part in parts
        ]
    if not source.is_file():
        raise UsageError(f"--input {source}: no such file or folder")
    if source.suffix == ".parquet":
        return _parquet_chunks(source, shape, image_range)
    if source.suffix == ".npz":
        return _npz_chunks(source, shape, labels)
    raise UsageError(f"--input {source}: expected a folder of images, a .parquet or an .npz file")


def _parquet_chunks(source: Path, shape: tuple[int, ...], image_range: str) -> list[Chunk]:
    try:
        with pq.ParquetFile(source) as file:
            schema = file.schema_arrow
            groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"--input {source}: not a complete Parquet file ({brief(error, 200)}); copy it again"
        ) from None
    column = "image" if len(shape) > 1 else "features"
    if column not in schema.names:
        raise UsageError(
            f"--input {source}: no column '{column}', which the model expects (columns: "
            f"{brief(', '.join(schema.names), 300)}); rename or add it"
        )
    if schema.names.count(column) > 1:
        raise UsageError(f"--input {source}: two columns '{column}'; keep one of them")
    kind = schema.field(column).type
    if pa.types.is_fixed_size_list(kind) and kind.list_size != shape[0]:
        raise UsageError(
            f"--input {source}: {kind.list_size} features per row; the model expects {shape[0]}"
        )
    inner = kind.value_type if _is_list(kind) else kind
    numbers = pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner)
    if not (holds_images(kind) if len(shape) > 1 else _is_list(kind) and numbers):
        wanted = "bytes of images" if len(shape) > 1 else "lists of numbers"
        raise UsageError(
            f"--input {source}: column '{column}' is {brief(str(kind))}; expected {wanted}"
        )
    name = next((name for name in _NAME_COLUMNS if schema.names.count(name) == 1), None)
    starts = np.cumsum([0, *groups])
    return [
        ParquetChunk(
            source, shape, count, group, int(starts[group]), column, name, image_range=image_range
        )
        for group, count in enumerate(groups)
        if count
    ]


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


def _npz_chunks(source: Path, shape: tuple[int, ...], labels: Sequence[str]) -> list[Chunk]:
    array = "images" if len(shape) > 1 else "features"
    try:
        with open_arrays(source) as archive:
            arrays = array_names(archive)
            if array not in arrays:
                raise UsageError(
                    f"--input {source}: no array '{array}', which the model expects (arrays: "
                    f"{brief(', '.join(arrays), 300) or 'none'}); rename or add it"
                )
            array_shape, by_column, dtype = check_size(archive, array)
            named = None
            if "label_names" in arrays:
                named = names_of(read_array(archive, "label_names"))
    except ValueError as error:
        raise UsageError(f"--input {source}: cannot be read ({error})") from None
    if named is not None and named != list(labels):
        other = next((n for n in named if n not in labels), "another order")
        raise UsageError(
            f"--input {source}: its label_names differ from those of the model ({brief(other)}); use "
            "the model that was trained for them"
        )
    fits = dtype == np.uint8 if len(shape) > 1 else dtype.kind in "fiub"
    if tuple(array_shape[1:]) != shape or not fits:
        sides = ", ".join(str(side) for side in shape)
        raise UsageError(
            f"--input {source}: {array} is {dtype} {tuple(array_shape)}; the model expects "
            f"{'uint8' if len(shape) > 1 else 'numbers'} of shape (N, {sides})"
        )
    # An array in Fortran order is read as a whole, so it is one chunk.
    rows = max(1, array_shape[0]) if by_column and len(array_shape) > 1 else _ROWS
    return [
        NpzChunk(source, shape, min(rows, array_shape[0] - start), array, start)
        for start in range(0, array_shape[0], rows)
    ]
