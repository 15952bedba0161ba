"""The minibatches of each step of an epoch: this rank's share of the labelled and unlabelled samples.

The batches of a step are drawn for all ranks together and are a pure function of (seed, epoch); so are
the random numbers of the views. The number of ranks only decides which rank handles which sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.config import TrainingConfig
from bbam_ray.data.sampling.batches import (
    AugmentationNoise,
    cycled_batches,
    epoch_batches,
    epoch_rng,
    repeated_batches,
)
from bbam_ray.data.sampling.sharding import StepShare, even_part, main_phase_shares, owned_rows
from bbam_ray.data.views.images import NOISE_WIDTH, Views
from bbam_ray.engine.evaluation import channels_last, read_rows
from bbam_ray.engine.prefetch import Copies, in_background
from bbam_ray.engine.task import TrainingData
from bbam_ray.methods.method import Minibatch

# Purposes of the random streams of an epoch (see data/sampling/batches.py).
_LABELED_ORDER, _UNLABELED_ORDER, _LABELED_VIEWS, _UNLABELED_VIEWS, _GLOBAL, _SCORED = range(1, 7)


@dataclass(frozen=True)
class Step:
    """Labelled samples with their labels (B_l, K), and unlabelled ones in the main phase."""

    labeled: Minibatch
    labels: Tensor
    unlabeled: Minibatch | None = None


@dataclass
class _Part:
    """This rank's part of a labelled or unlabelled batch.

    Args:
        samples: (B,) rows of the training part.
        labels: (B,) positions in the pool.
        local: (B,) positions among this rank's samples.
        total: samples of the batch over all ranks.
        noise: (B, W) random numbers of the views.
        copied: returns samples, noise, ``local`` and ``labels`` on the device, if they were read ahead.
    """

    samples: np.ndarray
    labels: np.ndarray
    local: np.ndarray
    total: int
    noise: Tensor
    copied: Callable[[], tuple[Tensor, ...]] | None = None


Parts = Generator[tuple[_Part, _Part | None]]


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed torch's global generator (used by dropout); every rank gets a different stream."""
    source = epoch_rng(seed, epoch, _GLOBAL)
    if rank := distributed.rank():
        source = np.random.default_rng([seed, epoch, _GLOBAL, rank])
    torch.manual_seed(int(source.integers(2**62)))


def scoring_noise(
    seed: int, epoch: int, data: TrainingData, rows: tuple[np.ndarray, np.ndarray]
) -> tuple[Tensor, Tensor]:
    """Random numbers (N, 1) of the weak views in a refresh, for this rank's samples of both pools.

    Args:
        seed, epoch: of the run and of the epoch that begins.
        data: its pools, on whose sizes the numbers depend.
        rows: this rank's positions in the labelled and in the unlabelled pool.
    """
    noise = AugmentationNoise(seed, epoch, _SCORED, 1)
    labeled = noise.draw(len(data.labeled))[rows[0]]
    return labeled, noise.draw(len(data.unlabeled))[rows[1]]


class EpochSteps:
    """The steps of one epoch on this rank.

    Args:
        common: batch sizes, passes and seed.
        data: what training may see.
        views: computes the inputs of a step when the method asks for them.
        labels: (N_l, K) 0/1 of all labelled samples, on the training device.
        epoch: from 1.
        main_phase: True with unlabelled samples; False in the warm-up, without them.
        ahead: read samples ahead in a thread; None = on a GPU. On a CPU it would slow training.
        first: step to begin with, from 0; no sample of those before it is read.
    """

    def __init__(
        self,
        common: TrainingConfig,
        data: TrainingData,
        views: Views,
        labels: Tensor,
        epoch: int,
        *,
        main_phase: bool,
        ahead: bool | None = None,
        first: int = 0,
    ) -> None:
        self._first = first
        self._ahead = labels.device.type == "cuda" if ahead is None else ahead
        self._data, self._views, self._labels = data, views, labels
        #: host time spent on reading samples and computing views
        self.seconds_input = 0.0
        self._seed, self._epoch = common.seed, epoch
        rank, world_size = distributed.rank(), distributed.world_size()
        drawn = epoch if common.shuffle else 0  # the epoch whose random order is used
        order = epoch_rng(common.seed, drawn, _LABELED_ORDER)
        self._labeled_rows = owned_rows(len(data.labeled), rank, world_size)
        self._unlabeled: list[np.ndarray] = []
        self._shares: list[StepShare] = []
        if main_phase:
            self._unlabeled = epoch_batches(
                len(data.unlabeled),
                common.unlabeled_batch,
                1,
                epoch_rng(common.seed, drawn, _UNLABELED_ORDER),
            )
            labeled_batches = cycled_batches if common.shuffle else repeated_batches
            self._labeled = labeled_batches(
                len(data.labeled), common.labeled_batch, len(self._unlabeled), order
            )
            self._shares, self.unlabeled_rows = main_phase_shares(
                self._labeled, self._unlabeled, rank, world_size
            )
        else:
            batch = common.warmup_batch or common.labeled_batch
            passes = common.warmup_passes if common.shuffle else 1
            self._labeled = epoch_batches(len(data.labeled), batch, passes, order)
            self._labeled *= common.warmup_passes // passes

    @property
    def samples(self) -> int:
        """Number of samples of all steps, over all ranks."""
        return sum(map(len, self._labeled)) + sum(map(len, self._unlabeled))

    def __len__(self) -> int:
        return len(self._labeled)

    def __iter__(self) -> Iterator[Step]:
        """The steps from the first one on; on a GPU their samples are read ahead, in a thread."""
        parts = self._parts()
        if self._ahead:
            parts = in_background(self._reading(parts))
        with closing(parts):  # ends the thread if not all steps are taken
            for labeled, unlabeled in parts:
                minibatch, positions = self._minibatch(labeled)
                rest = None if unlabeled is None else self._minibatch(unlabeled)[0]
                yield Step(minibatch, self._labels[positions], rest)

    def _parts(self) -> Parts:
        """This rank's part of the labelled and the unlabelled batch of each step, in order.

        The random numbers of steps before the first one are drawn, so that the streams are the same.
        """
        labeled_noise = AugmentationNoise(self._seed, self._epoch, _LABELED_VIEWS, NOISE_WIDTH)
        unlabeled_noise = AugmentationNoise(self._seed, self._epoch, _UNLABELED_VIEWS, NOISE_WIDTH)
        rank, world_size = distributed.rank(), distributed.world_size()
        pools = self._data.labeled, self._data.unlabeled
        for step, rows in enumerate(self._labeled):
            if step < self._first:
                labeled_noise.draw(len(rows))
                unlabeled_noise.draw(len(self._unlabeled[step]) if self._shares else 0)
                continue
            if not self._shares:
                part = even_part(len(rows), rank, world_size)
                yield self._part(pools[0], rows, part, rows[part], labeled_noise), None
                continue
            share, unlabeled_rows = self._shares[step], self._unlabeled[step]
            local = np.searchsorted(self._labeled_rows, rows[share.labeled])
            labeled = self._part(pools[0], rows, share.labeled, local, labeled_noise)
            local = np.searchsorted(self.unlabeled_rows, unlabeled_rows[share.unlabeled])
            unlabeled = self._part(
                pools[1], unlabeled_rows, share.unlabeled, local, unlabeled_noise
            )
            yield labeled, unlabeled

    def _part(
        self,
        pool: np.ndarray,
        rows: np.ndarray,
        part: slice | np.ndarray,
        local: np.ndarray,
        noise: AugmentationNoise,
    ) -> _Part:
        return _Part(pool[rows[part]], rows[part], local, len(rows), noise.draw(len(rows))[part])

    def _reading(self, parts: Parts) -> Parts:
        """The same with everything that a step needs on its way to the device."""
        copies = Copies(self._labels.device)
        for pair in parts:
            for part in pair:
                if part is not None:
                    samples = read_rows(self._data.inputs, part.samples)
                    rows = torch.from_numpy(part.local), torch.from_numpy(part.labels)
                    part.copied = copies.start(samples, part.noise, *rows)
            yield pair

    def _minibatch(self, part: _Part) -> tuple[Minibatch, Tensor]:
        """A minibatch whose views are computed when the method asks for them; positions of its labels."""
        device = self._labels.device
        transforms = {"weak": self._views.weak, "strong": self._views.strong}
        if part.copied is None:
            local = torch.from_numpy(part.local).to(device)
            positions = torch.from_numpy(part.labels).to(device)
        else:
            *copied, local, positions = part.copied()

        @cache
        def stored() -> Sequence[Tensor]:
            """Samples and noise on the device, read once for all views; freed with the minibatch."""
            if part.copied is not None:
                return copied
            samples = read_rows(self._data.inputs, part.samples)
            return samples.to(device), part.noise.to(device)

        def view(kind: str) -> Tensor:
            started = time.perf_counter()
            inputs = channels_last(transforms[kind](*stored()))
            self.seconds_input += time.perf_counter() - started
            return inputs

        return Minibatch(local, part.total, view), positions
