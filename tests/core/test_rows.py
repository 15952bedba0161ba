"""Blocks of rows cover every row once, in order, and have the size that suits the device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbam_ray.core.rows import block_entries, replace_in_blocks, row_blocks

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@given(rows=st.integers(0, 3_000_000), width=st.integers(0, 500_000))
def test_blocks_cover_all_rows_and_hold_at_most_their_entries(rows: int, width: int) -> None:
    for device in (CPU, GPU):
        step = max(1, block_entries(device) // max(1, width))
        if rows / step > 2_000:
            continue
        blocks = list(row_blocks(rows, width, device=device))
        assert [row for block in blocks for row in (block.start, block.stop)] == sorted(
            [block.start for block in blocks] + [block.stop for block in blocks]
        )
        assert sum(block.stop - block.start for block in blocks) == rows
        for block in blocks:
            size = block.stop - block.start
            assert size == 1 or size * width <= block_entries(device)


@pytest.mark.parametrize(("device", "blocks"), [(CPU, 51), (GPU, 1)])
def test_a_refresh_of_coco_size_takes_few_blocks_on_a_gpu(
    device: torch.device, blocks: int
) -> None:
    assert len(list(row_blocks(82_081, 80, device=device))) == blocks


def test_a_matrix_is_replaced_in_place() -> None:
    matrix = torch.arange(500_000.0).view(-1, 5)
    expected = matrix * 2
    assert replace_in_blocks(lambda rows: rows * 2, matrix) is matrix
    torch.testing.assert_close(matrix, expected, rtol=0, atol=0)
