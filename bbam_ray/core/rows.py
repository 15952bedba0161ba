"""Iterating over sample rows in blocks, so that temporaries stay small next to an N x K matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_BLOCK_ENTRIES = 1 << 17  # of a CPU: a block of float64 stays in a core's cache
_GPU_BLOCK_ENTRIES = 1 << 23  # few kernel launches; 64 MB for each float64 temporary


def block_entries(device: torch.device) -> int:
    """Entries of a block on a device; fixed, so that sums do not depend on how much memory is free."""
    return _BLOCK_ENTRIES if device.type == "cpu" else _GPU_BLOCK_ENTRIES


def row_blocks(num_rows: int, row_width: int, *, device: torch.device) -> Iterator[slice]:
    """Slices that cover ``num_rows`` rows: about 130,000 entries each on a CPU, 8 million on a GPU.

    A function that uses blocks has a few temporaries of a block at once: about 1 MB each on a CPU, 64 MB
    on a GPU.

    Args:
        num_rows: N.
        row_width: entries of a row; a block has at least one row.
        device: on which the rows are.
    """
    step = max(1, block_entries(device) // max(1, row_width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def replace_in_blocks(change: Callable[[Tensor], Tensor], matrix: Tensor) -> Tensor:
    """``matrix[...] = change(matrix)`` with small temporaries; returns the matrix.

    Args:
        change: maps (rows, width) to the same shape and treats each row independently.
        matrix: (N, width), overwritten.
    """
    for rows in row_blocks(*matrix.shape, device=matrix.device):
        matrix[rows] = change(matrix[rows])
    return matrix
