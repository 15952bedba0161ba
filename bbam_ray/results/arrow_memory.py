"""Arrow's memory while a study runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


@contextmanager
def returned_memory() -> Iterator[None]:
    """Let Arrow take its memory from the system's allocator while the block runs.

    Arrow's own allocator keeps what was freed: a study that writes its tables for hours would grow with
    every trial. The user's choice, ``ARROW_DEFAULT_MEMORY_POOL``, takes precedence.
    """
    before = pa.default_memory_pool()
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
