"""Exact selection of the k highest scores per label over all ranks, by radix select.

Scores become order-preserving 32-bit keys; all-reduced per-label histograms of 11 + 11 + 10 bits
narrow the k-th key down. Nothing is gathered or sorted: a rank holds its own rows only, and a
selection costs 3 messages of K x 2048 counts whatever N is (3 more where scores tie at the
threshold).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.rows import row_blocks

_ROUNDS = ((21, 11), (10, 11), (0, 10))  # (shift, bits), most significant digit first
_INDEX_LIMIT = 2**31 - 1


def ordered_keys(scores: Tensor) -> Tensor:
    """int32 keys in the order of float32 scores: a > b exactly when key(a) > key(b); -0 equals +0."""
    bits = (scores.float() + 0.0).view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _histograms(
    keys: Tensor, candidates: Tensor, prefix: Tensor | None, shift: int, bits: int
) -> Tensor:
    """(K, 2^bits) int64 counts over all ranks of a digit of the candidates that match the prefix."""
    num_labels, width = keys.shape[1], 1 << bits
    counts = torch.zeros(num_labels * width, dtype=torch.int64, device=keys.device)
    base = torch.arange(num_labels, device=keys.device) * width
    for rows in row_blocks(keys.shape[0], num_labels):
        # Unsigned order: flipping the sign bit makes negative keys the lowest ones.
        unsigned = (keys[rows].long() & 0xFFFFFFFF) ^ 0x80000000
        active = candidates[rows]
        if prefix is not None:
            active = active & ((unsigned >> (shift + bits)) == prefix)
        bins = ((unsigned >> shift) & (width - 1)) + base
        counts += torch.bincount(bins[active], minlength=num_labels * width)
    (counts,) = distributed.all_reduce_sum(counts)
    return counts.view(num_labels, width)


def _radix_select(
    keys: Tensor, candidates: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The wanted-th highest key of each label, how many equal to it to take, and how many there are.

    ``wanted`` (K,) int64 is cut to the number of candidates; labels that want nothing get a
    remainder of 0, which selects nothing together with the highest possible key.
    """
    prefix: Tensor | None = None
    remaining, tied = wanted, torch.zeros_like(wanted)
    nothing = wanted <= 0
    for shift, bits in _ROUNDS:
        counts = _histograms(keys, candidates, prefix, shift, bits)
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
    bits32 = prefix ^ 0x80000000
    signed = torch.where(bits32 < 2**31, bits32, bits32 - 2**32)
    threshold = torch.where(nothing, 0x7FFFFFFF, signed).to(torch.int32)
    zero = torch.zeros_like(remaining)
    return threshold, torch.where(nothing, zero, remaining), torch.where(nothing, zero, tied)


def select_highest(
    scores: Tensor, candidates: Tensor, counts: Tensor, index: Tensor | None = None
) -> Tensor:
    """Exactly the ``counts`` highest-scored candidates of each label over all ranks, (N, K) bool.

    Args:
        scores: (N, K) float32, this rank's rows, without NaN.
        candidates: (N, K) bool.
        counts: (K,) int64, the same on every rank; more than there are candidates takes them all,
            0 takes none.
        index: (N,) int64 in [0, 2^31 - 1), unique over all ranks; ties go to the lower index.
            Default: rank-ordered position.
    """
    keys = ordered_keys(scores)
    threshold, remaining, tied = _radix_select(keys, candidates, counts.to(torch.int64))
    chosen = candidates & (keys > threshold)
    at_threshold = candidates & (keys == threshold)
    # The counts are global, so every rank takes the same branch.
    if bool((remaining == tied).all()):
        return chosen | (at_threshold & (remaining > 0))
    if index is None:
        index = distributed.global_index(keys.shape[0], keys.device)
    order = (_INDEX_LIMIT - index).to(torch.int32).unsqueeze(1).expand_as(keys)
    last, _, _ = _radix_select(order, at_threshold, remaining)
    return chosen | (at_threshold & (order >= last) & (remaining > 0))
