"""Mutations by file format (arrays, tables, archives, images, weights), and of whole folders."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from stress.fuzz_folders import Files
from stress.fuzz_mutations import (
    TEXTS,
    WHOLE,
    Draw,
    damaged,
    json_document,
    text_lines,
    yaml_document,
)

_SHAPES = ((), (0,), (0, 3), (8, 0), (8, 3, 1), (1, 3), (8, 2), (3, 8))
_CELLS: tuple[Any, ...] = (
    *(1, -1, 2**40, 1.5, float("nan"), float("inf"), "", "a", "x" * 2000, b"\xff", None, True),
    *([], [1.0], [None], ["a", None], [[1]], {"a": 1}, {"bytes": None}, {"bytes": "a"}),
    *([1e300] * 3, "a\nb", "\u2028", "../x", [float("nan")] * 3, ["a", "a"]),
)
_METADATA = (
    *(
        b"",
        b"x",
        b"-1",
        b"1.5",
        b"9" * 5000,
        b"\xff",
        b"[" * 5000,
        b'{"names": [1]}',
        b"2",
        b"null",
    ),
)
_TYPES = ("f2", "f8", "i8", "u1", "c8", "?", "U3", "S3", "M8[s]", ">f4", "V4")


def array(draw: Draw, content: bytes) -> bytes:
    """A ``.npy`` file with another shape, type or order, or with a header that does not fit the data."""
    valid = np.load(io.BytesIO(content))
    kind = draw(st.sampled_from(("shape", "type", "value", "header", "bytes")))
    if kind == "bytes":
        return damaged(draw, content)
    if kind == "header":
        shape = draw(
            st.sampled_from(("(10**12, 3)", "(1000000000000, 3)", "(8, 1000000000000)", "(-1, 3)"))
        )
        order = draw(st.sampled_from(("False", "True")))
        kind = draw(st.sampled_from(("<f4", "|O", "|V0", "<U0", "<c16", "<f4,<f4")))
        header = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + b"\0" * 96
    if kind == "shape":
        changed: Any = np.ones(draw(st.sampled_from(_SHAPES)), valid.dtype)
    elif kind == "type":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed = np.zeros(valid.shape, draw(st.sampled_from(_TYPES)))
    else:
        changed = valid.astype("f8") if valid.dtype.kind in "fiu" else np.zeros(valid.shape)
        odd = (float("nan"), float("inf"), -1e300, 1e39, -1, 2, 0.5)
        changed[..., -1:] = draw(st.sampled_from(odd))
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(changed) if draw(st.booleans()) else changed)
    return stream.getvalue()


def members(draw: Draw, content: bytes) -> bytes:
    """A zip file with one member changed, renamed, duplicated or removed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    index = draw(st.integers(0, len(entries) - 1))
    name, inner = entries[index]
    kind = draw(st.sampled_from(("inner", "inner", "inner", "rename", "duplicate", "remove")))
    if kind == "inner":
        entries[index] = (name, changed_content(draw, name, inner))
    elif kind == "rename":
        new = [t for t in TEXTS if t.strip("\0") and "\ud800" not in t and len(t) < 9999]
        entries[index] = (draw(st.sampled_from(new)), inner)
    elif kind == "duplicate":
        entries.append(entries[index])
    else:
        del entries[index]
    stream = io.BytesIO()
    packing = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", packing) as archive:
        warnings.simplefilter("ignore")
        for name, inner in entries:
            archive.writestr(name, inner)
    return stream.getvalue()


def columns(draw: Draw, content: bytes) -> bytes:
    """A Parquet file with a column or the metadata changed, or with fewer rows."""
    table = pq.read_table(io.BytesIO(content))
    index = draw(st.integers(0, table.num_columns - 1))
    name, count = table.column_names[index], len(table)
    kind = draw(
        st.sampled_from(("column", "column", "column", "remove", "rename", "rows", "metadata"))
    )
    if kind == "column":
        one = draw(st.sampled_from(_CELLS))
        values = [one] * count
        if draw(st.booleans()) and count:
            values[-1] = None
        changed = pa.array(values)
        if pa.types.is_string(changed.type) and draw(st.booleans()):
            changed = changed.dictionary_encode()
        table = table.set_column(index, name, changed)
    elif kind == "remove":
        table = table.drop_columns([name])
    elif kind == "rename":
        names = [t for t in TEXTS if "\ud800" not in t] + table.column_names
        new = draw(st.sampled_from(names))
        table = table.rename_columns([new if n == name else n for n in table.column_names])
    elif kind == "rows":
        table = table.slice(0, draw(st.integers(0, 2)))
    else:
        key = draw(st.sampled_from((b"schema_version", b"huggingface", b"pandas", b"ARROW:schema")))
        table = table.replace_schema_metadata({key: draw(st.sampled_from(_METADATA))})
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=3)
    return stream.getvalue()


def picture(draw: Draw, content: bytes) -> bytes:
    """A PNG file with another size, maybe a huge one, or another format; its checksum is correct."""
    side = struct.pack(">I", draw(st.sampled_from((0, 1, 20, 9_000, 20_000, 2**31 - 1, 2**32 - 1))))
    head = bytearray(content[12:29])
    at = draw(st.sampled_from((4, 8)))
    head[at : at + 4] = side
    if draw(st.booleans()):
        head[draw(st.integers(12, 16))] = draw(st.integers(0, 16))
    return content[:12] + bytes(head) + struct.pack(">I", zlib.crc32(head)) + content[33:]


def tensor_header(draw: Draw, content: bytes) -> bytes:
    """A safetensors file with another header."""
    length = int.from_bytes(content[:8], "little")
    header = json_document(draw, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def row_file(draw: Draw, content: bytes) -> bytes:
    """A ``.rows`` file with another header, whose length is correct."""
    start, end = content.rindex(b'{"shape"'), content.rindex(b"}") + 1
    header = json_document(draw, content[start:end])
    length = len(header).to_bytes(8, "little")
    return content[:start] + header + content[end:-16] + length + content[-8:]


STRUCTURED: dict[str, tuple[Callable[[Draw, bytes], bytes], ...]] = {
    **dict.fromkeys((".csv", ".tsv", ".jsonl", ".txt", ".arff", ".xml"), (text_lines,)),
    **dict.fromkeys((".npz", ".zip", ".pt"), (members,)),
    ".yaml": (yaml_document, text_lines),
    ".json": (json_document,),
    ".npy": (array,),
    ".parquet": (columns,),
    ".png": (picture,),
    ".safetensors": (tensor_header,),
    ".rows": (row_file,),
}


def changed_content(draw: Draw, name: str, content: bytes) -> bytes:
    """Other content for a file, by its format."""
    kinds = STRUCTURED.get("." + name.rpartition(".")[2], (damaged,))
    how = draw(st.sampled_from((*kinds, *kinds, *kinds, damaged, None)))
    if how is not None:
        return how(draw, content)  # type: ignore[no-any-return]
    return draw(st.one_of(st.sampled_from(WHOLE), st.binary(max_size=60)))  # type: ignore[no-any-return]


@st.composite
def mutated(draw: Draw, valid: Files, skip: tuple[str, ...] = ()) -> Files:
    """A folder with one or two files changed, renamed, removed, or replaced by folders or links."""
    files = dict(valid)
    names = [name for name in files if name not in skip]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        content = files[name]
        rare = ("remove", "folder", "link", "loop", "rename")
        kind = draw(st.sampled_from(("content",) * 12 + rare))
        if kind == "content" and isinstance(content, bytes):
            files[name] = changed_content(draw, name, content)
        elif kind == "folder":
            files[name] = "/"
        elif kind == "link":
            files[name] = "missing"
        elif kind == "loop":
            files[name] = name.rpartition("/")[2]
        elif kind == "rename" and len(files) > 1:
            above, _, last = name.rpartition("/")
            odd = draw(st.sampled_from(("é ", "\udcff", ".", "a\nb", "%s", "-")))
            stem, dot, suffix = last.rpartition(".")
            new = draw(st.sampled_from((f"{odd}{last}", f"{stem}{odd}{dot}{suffix}")))
            files[f"{above}/{new}".removeprefix("/")] = files.pop(name)
        elif len(files) > 1:
            del files[name]
    return files
