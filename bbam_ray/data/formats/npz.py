"""Arrays of ``.npz`` files; declared sizes are checked before memory is allocated."""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from bbam_ray.data.download.archive_members import DAMAGED
from bbam_ray.errors import brief

#: exceptions that a damaged .npz file raises
DAMAGED_ARRAYS = (*DAMAGED, OSError, KeyError, SyntaxError, TypeError, tokenize.TokenError)


def array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of an array; its values follow in the stream."""
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers written by Python 2
        shape, fortran_order, dtype = read(stream)
    if any(side < 0 for side in shape):
        raise ValueError(f"an array has the shape {brief(shape)}")
    if dtype.hasobject:
        raise ValueError("contains Python objects; save it with .astype(str) or .astype(float)")
    return shape, fortran_order, dtype


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays in an open file; a ValueError if one occurs twice."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if len(set(names)) < len(names):
        raise ValueError("contains two arrays of the same name")
    return names


def check_size(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The header of an array; a ValueError unless the file has as many bytes as it declares."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as stream:
        try:
            shape, by_column, dtype = array_header(stream)
        except ValueError as error:
            raise ValueError(f"array '{brief(name)}': {brief(error, 200)}") from None
        declared, stored = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
    if declared != stored:
        raise ValueError(f"'{brief(name)}' declares {declared} bytes and has {stored}")
    return shape, by_column, dtype


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an open file."""
    shape, by_column, dtype = check_size(archive, name)
    with archive.open(f"{name}.npy") as stream:
        array_header(stream)
        content = bytearray(stream.read())
    array: np.ndarray = np.frombuffer(content, dtype).reshape(
        shape, order="F" if by_column else "C"
    )
    return array


def names_of(array: np.ndarray) -> list[str]:
    """An array of texts or whole numbers as texts; a ValueError for anything else."""
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise ValueError(f"names are {array.dtype} {array.shape}; expected texts of shape (K,)")
    try:
        names: list[str] = array.astype(str).tolist()
        "".join(names).encode()
    except (UnicodeError, SystemError):  # NumPy does not check code points
        raise ValueError("a name is not valid text") from None
    return names


@contextmanager
def open_arrays(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an ``.npz`` file; errors of a damaged one become a ValueError with a one-line message."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGED_ARRAYS as error:
        strerror = error.strerror if isinstance(error, OSError) else None
        raise ValueError(brief(strerror or error, 200)) from None
