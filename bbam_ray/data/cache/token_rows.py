"""Texts as token numbers: padded to one length on disk, trimmed to the longest text in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bbam_ray.data.cache.row_file import StoredRows
from bbam_ray.data.formats.tokenizer import ABSENT

_BUCKET = 16  # widths of batches are multiples of it, so that few different widths occur


class TokenRows(StoredRows):
    """(N, L) int32 token numbers, padded with ``ABSENT``.

    Indexing gives (B, l), where l is the length of the longest of the B rows, rounded up.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        #: (N,) tokens of each text
        self.lengths: np.ndarray = np.asarray(self.metadata["lengths"], dtype=np.int32)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return trimmed(super().__getitem__(rows))


def trimmed(tokens: np.ndarray) -> np.ndarray:
    """(B, L) tokens without the last columns, if these are absent in all rows."""
    if tokens.ndim < 2 or not len(tokens):
        return tokens
    used = np.flatnonzero((tokens != ABSENT).any(axis=0))
    longest = int(used[-1]) + 1 if len(used) else 1
    width: int = -(-longest // _BUCKET) * _BUCKET
    return tokens[:, :width]
