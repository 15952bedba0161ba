"""Walking over sample rows in blocks, so that temporaries stay small next to an N x K matrix."""

from __future__ import annotations

from collections.abc import Iterator

_BLOCK_ENTRIES = 1 << 20


def row_blocks(num_rows: int, row_width: int) -> Iterator[slice]:
    """Slices that cover ``num_rows`` rows with about a million entries of ``row_width`` each."""
    step = max(1, _BLOCK_ENTRIES // max(1, row_width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
