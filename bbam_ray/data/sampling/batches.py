"""The order of samples: a pure function of (seed, epoch), the same for any number of workers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def epoch_rng(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """An independent random stream for one epoch and purpose."""
    return np.random.default_rng([seed, epoch, purpose])


def epoch_batches(
    count: int, batch: int, passes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Shuffled positions 0..count-1 in nearly equal batches of at most ``batch``, ``passes`` times.

    Batches of one pass differ by at most one sample, so that none is too small for batch normalization.
    """
    steps = -(-count // batch)
    return [part for _ in range(passes) for part in np.array_split(rng.permutation(count), steps)]


def cycled_batches(
    count: int, batch: int, steps: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """``steps`` batches of exactly min(batch, count) positions, pass after shuffled pass."""
    size = min(batch, count)
    passes = -(-steps * size // count)
    order = np.concatenate([rng.permutation(count) for _ in range(passes)])
    return list(order[: steps * size].reshape(steps, size))


def repeated_batches(
    count: int, batch: int, steps: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """``steps`` of the batches of one shuffled pass, which are repeated as they are."""
    parts = epoch_batches(count, batch, 1, rng)
    return [parts[step % len(parts)] for step in range(steps)]


class AugmentationNoise:
    """Uniform random numbers for the views of one epoch.

    They belong to the position of a sample in the epoch, not to the process that handles it.

    Args:
        seed, epoch, purpose: identify the random stream.
        width: numbers per sample.
    """

    def __init__(self, seed: int, epoch: int, purpose: int, width: int) -> None:
        state = np.random.SeedSequence([seed, epoch, purpose]).generate_state(1, np.uint64)
        self._generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        self._width = width

    def draw(self, count: int) -> Tensor:
        """The next (count, width) float32 numbers in [0, 1)."""
        return torch.rand(count, self._width, generator=self._generator)
