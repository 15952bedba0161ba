"""Exact selection of the k highest scores of each label over all ranks, by radix select.

Scores become order-preserving 32-bit keys; all-reduced histograms by label of 11 + 11 + 10 bits narrow
the k-th key down. Nothing is gathered or sorted: a rank iterates over blocks of its own rows, and the
matrix of all scores never has to exist. A selection costs 3 messages of K x 2048 counts for any N (3 more
if scores tie at the threshold).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.rows import row_blocks

_ROUNDS = ((21, 11), (10, 11), (0, 10))  # (shift, bits), most significant digit first
_INDEX_LIMIT = 2**31 - 1
_SIGN = -(2**31)

#: a block of rows -> scores (rows, K) float32 without NaN, and which are candidates (rows, K) bool
Block = Callable[[slice], tuple[Tensor, Tensor]]
_KeyBlock = Block  # with int32 keys for scores


def ordered_keys(scores: Tensor) -> Tensor:
    """int32 keys in the order of float32 scores: a > b exactly when key(a) > key(b); -0 equals +0.

    Args:
        scores: of any shape, without NaN; computed in float32.

    Examples:
        >>> ordered_keys(torch.tensor([-1.5, -0.0, 0.0, 2.0])).argsort(stable=True).tolist()
        [0, 1, 2, 3]
    """
    bits = (scores.float() + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # flips all bits but the sign of negative numbers


def _histograms(
    keys: _KeyBlock,
    shape: tuple[int, int],
    prefix: Tensor | None,
    shift: int,
    bits: int,
    device: torch.device,
) -> Tensor:
    """(K, 2^bits) int64 counts over all ranks of a digit of the candidates that match the prefix."""
    num_labels, width = shape[1], 1 << bits
    ignored = num_labels * width  # the last bin takes the entries that are no candidates
    counts = torch.zeros(ignored + 1, dtype=torch.int64, device=device)
    one = torch.ones(1, dtype=torch.int64, device=device)
    base = torch.arange(num_labels, device=device, dtype=torch.int32) * width
    for rows in row_blocks(*shape, device=device):
        key, active = keys(rows)
        # Unsigned order: flipping the sign bit makes negative keys the lowest ones.
        unsigned = key ^ _SIGN
        if prefix is not None:
            active = active & ((unsigned >> (shift + bits)) == prefix)
        bins = ((unsigned >> shift) & (width - 1)).add_(base)
        bins = torch.where(active, bins, ignored).view(-1)
        counts.index_add_(0, bins, one.expand(len(bins)))
    (counts,) = distributed.all_reduce_sum(counts[:ignored])
    return counts.view(num_labels, width)


def _radix_select(
    keys: _KeyBlock, shape: tuple[int, int], wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the threshold key of each label.

    Args:
        keys: blocks of keys and candidates.
        shape: (N, K), this rank's rows.
        wanted: (K,) int64, keys to select of each label; limited to the number of its candidates.

    Returns:
        The wanted-th highest key (K,), how many keys equal to it to select (K,), and how many of them
        there are (K,). A label that selects nothing gets the highest possible key and a 0.
    """
    prefix: Tensor | None = None
    remaining, tied = wanted, torch.zeros_like(wanted)
    nothing = wanted <= 0
    for shift, bits in _ROUNDS:
        # The digits so far with their sign, as an arithmetic shift of the key gives them.
        signed = None if prefix is None else _as_int32(prefix << (shift + bits)) >> (shift + bits)
        counts = _histograms(keys, shape, signed, shift, bits, wanted.device)
        if prefix is None:
            remaining = torch.minimum(wanted, counts.sum(1))
            nothing = remaining <= 0
        from_top = counts.flip(1).cumsum(1).flip(1)  # candidates in this bin or above
        digit = ((from_top >= remaining.clamp_min(1).unsqueeze(1)).sum(1) - 1).clamp_min(0)
        tied = counts.gather(1, digit.unsqueeze(1)).squeeze(1)
        above = from_top.gather(1, digit.unsqueeze(1)).squeeze(1) - tied
        remaining = remaining - above
        prefix = digit if prefix is None else (prefix << bits) | digit
    assert prefix is not None
    threshold = torch.where(nothing, 0x7FFFFFFF, _as_int32(prefix) ^ _SIGN)
    zero = torch.zeros_like(remaining)
    return threshold, torch.where(nothing, zero, remaining), torch.where(nothing, zero, tied)


def _as_int32(unsigned: Tensor) -> Tensor:
    """The int32 with the same 32 bits as an int64 in [0, 2^32)."""
    return torch.where(unsigned < 2**31, unsigned, unsigned - 2**32).to(torch.int32)


def select_from_blocks(
    block: Block, shape: tuple[int, int], counts: Tensor, index: Tensor | None = None
) -> Tensor:
    """``select_highest`` of scores that are computed on request: each four times, seven times with ties.

    Args:
        block: scores and candidates of a slice of rows; the same result at every call.
        shape: (N, K), this rank's rows.
        counts: see ``select_highest``; on the device of the scores.
        index: see ``select_highest``.
    """

    def keys(rows: slice) -> tuple[Tensor, Tensor]:
        scores, candidates = block(rows)
        return ordered_keys(scores), candidates

    counts = counts.to(torch.int64)
    threshold, remaining, tied = _radix_select(keys, shape, counts)
    # The counts are global, so every rank takes the same branch.
    if bool((remaining == tied).all()):
        last = None
    else:
        if index is None:
            index = distributed.global_index(shape[0], counts.device)
        order = (_INDEX_LIMIT - index).to(torch.int32).unsqueeze(1)

        def tied_orders(rows: slice) -> tuple[Tensor, Tensor]:
            key, candidates = keys(rows)
            return order[rows].expand_as(key), candidates & (key == threshold)

        last, _, _ = _radix_select(tied_orders, shape, remaining)
    chosen = torch.empty(shape, dtype=torch.bool, device=counts.device)
    for rows in row_blocks(*shape, device=counts.device):
        key, candidates = keys(rows)
        taken = (key == threshold) & (remaining > 0)
        if last is not None:
            taken &= order[rows] >= last
        chosen[rows] = candidates & (taken | (key > threshold))
    return chosen


def select_highest(
    scores: Tensor, candidates: Tensor, counts: Tensor, index: Tensor | None = None
) -> Tensor:
    """Select exactly the ``counts`` highest-scored candidates of each label over all ranks.

    Args:
        scores: (N, K) float32, this rank's rows, without NaN.
        candidates: (N, K) bool.
        counts: (K,) int64, the same on every rank; a count above the number of candidates selects them
            all, 0 selects none.
        index: (N,) int64 in [0, 2^31 - 1), unique over all ranks; ties go to the lower index.
            Default: the rank-ordered position.

    Returns:
        (N, K) bool, True for the selected candidates of this rank.

    Examples:
        >>> scores = torch.tensor([[0.3, 1.0], [0.9, 1.0], [0.5, 1.0]])
        >>> candidates = torch.ones(3, 2, dtype=torch.bool)
        >>> select_highest(scores, candidates, torch.tensor([2, 1])).tolist()
        [[False, True], [True, False], [True, False]]
    """
    num_rows, num_labels = scores.shape
    return select_from_blocks(
        lambda rows: (scores[rows], candidates[rows]), (num_rows, num_labels), counts, index
    )
