"""Which samples of an epoch a rank handles: every sample exactly once, the work evenly divided.

A main-phase step needs the results of the refresh for its samples, on the rank that handles them.
Labelled samples occur in many steps, so each has a permanent owner (its position modulo the number of
ranks). An unlabelled sample occurs once per epoch, so its owner is the rank that handles it in that
epoch: the unlabelled samples of a step balance what the labelled ones leave uneven, and the refresh
before the epoch is divided in the same way. So no results have to be sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def owned_rows(count: int, rank: int, world_size: int) -> np.ndarray:
    """Positions in 0..count-1 that a rank owns permanently, ascending."""
    return np.arange(rank, count, world_size)


def even_part(count: int, rank: int, world_size: int) -> slice:
    """A rank's consecutive part of ``count`` positions; sizes differ by at most one."""
    return slice(count * rank // world_size, count * (rank + 1) // world_size)


@dataclass(frozen=True)
class StepShare:
    """A rank's positions in the batches of one step.

    Args:
        labeled: (b_l,) positions in the step's labelled batch.
        unlabeled: its consecutive part of the step's unlabelled batch.
    """

    labeled: np.ndarray
    unlabeled: slice


def main_phase_shares(
    labeled_batches: list[np.ndarray],
    unlabeled_batches: list[np.ndarray],
    rank: int,
    world_size: int,
) -> tuple[list[StepShare], np.ndarray]:
    """A rank's share of every step of a main-phase epoch, and the unlabelled samples that it owns.

    Args:
        labeled_batches, unlabeled_batches: positions of the samples of each step, over all ranks.
        rank, world_size: of this process.

    Returns:
        The shares, and the ascending positions (N_u_rank,) of the rank's unlabelled samples.
    """
    shares, owned = [], []
    for labeled, unlabeled in zip(labeled_batches, unlabeled_batches, strict=True):
        owner = labeled % world_size
        ends = np.cumsum(fill_up(np.bincount(owner, minlength=world_size), len(unlabeled)))
        part = slice(int(ends[rank - 1]) if rank else 0, int(ends[rank]))
        shares.append(StepShare(np.flatnonzero(owner == rank), part))
        owned.append(unlabeled[part])
    return shares, np.sort(np.concatenate(owned))


def fill_up(loads: np.ndarray, items: int) -> np.ndarray:
    """Distribute ``items`` over the ranks so that the highest total load is minimal.

    Args:
        loads: (R,) current loads of the ranks.
        items: number of items to distribute.

    Returns:
        (R,) items of each rank; lower ranks get the remainder.
    """
    ascending = np.sort(loads)
    # For each n, the level that the n least loaded ranks reach if they share all items.
    sizes = np.arange(1, len(loads) + 1)
    levels = (items + np.cumsum(ascending)) // sizes
    level = int(levels[np.flatnonzero(ascending <= levels)[-1]])
    counts: np.ndarray = np.maximum(level - loads, 0)
    remainder = items - int(counts.sum())
    counts[np.flatnonzero(loads <= level)[:remainder]] += 1
    return counts
