"""Any partition of the rows over 1-4 ranks, simulated by threads, gives the result of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bbam_ray.core.negatives import sample_negatives
from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.statistics import angle_moments

N, D, K = 24, 4, 3


class ThreadGroup:
    """The part of torch.distributed that bbam_ray.distributed uses, for threads that meet at a barrier."""

    def __init__(self, size: int) -> None:
        self.size, self.local = size, threading.local()
        self.barrier = threading.Barrier(size, timeout=20)
        self.messages: dict[int, Tensor] = {}

    def all_reduce(self, tensor: Tensor) -> None:
        self.messages[self.local.rank] = tensor.clone()
        self.barrier.wait()
        stacked = torch.stack([self.messages[r] for r in range(self.size)])
        self.barrier.wait()
        tensor.copy_(stacked.sum(0))

    @contextmanager
    def installed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "is_initialized", lambda: True)
            patch.setattr(dist, "get_world_size", lambda: self.size)
            patch.setattr(dist, "get_rank", lambda: self.local.rank)
            patch.setattr(dist, "all_reduce", self.all_reduce)
            yield

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        results: dict[int, Any] = {}

        def member(rank: int) -> None:
            self.local.rank = rank
            try:
                results[rank] = work(rank)
            except BaseException:
                self.barrier.abort()
                raise

        threads = [threading.Thread(target=member, args=(r,)) for r in range(self.size)]
        with self.installed():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return [results[r] for r in range(self.size)]


@settings(max_examples=25, deadline=None)
@given(
    owners=st.lists(st.integers(0, 3), min_size=N, max_size=N),
    size=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
def test_every_partition_gives_the_same_answer(owners: list[int], size: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    features = torch.randint(-1, 2, (N, D), generator=g).float()  # many equal directions
    labels = torch.randint(0, 2, (N, K), generator=g)
    valid = torch.rand(N, K, generator=g) < 0.8
    scores = torch.randint(-2, 3, (N, K), generator=g).float()
    frequency, prototypes = torch.rand(K, generator=g), torch.randn(K, D, generator=g)
    labels[:, -1] = 0  # absent everywhere

    def work(rows: Tensor, index: Tensor | None) -> dict[str, Tensor]:
        shard = features[rows], labels[rows], valid[rows]
        moments = angle_moments(*shard, prototypes)
        pseudo, confident = assign_pseudo_labels(
            scores[rows], frequency, positive_keep=0.7, negative_keep=0.5, index=index
        )
        negatives = sample_negatives(shard[0], prototypes, shard[1], shard[2], 0.5, index)
        return {
            "prototypes": label_prototypes(*shard),
            "moments": torch.stack([moments.count, moments.mean, moments.m2]),
            "pseudo": pseudo,
            "confident": confident,
            "negatives": negatives,
        }

    expected = work(torch.arange(N), None)
    owner = torch.tensor(owners) % size
    shards = [torch.nonzero(owner == rank).squeeze(1) for rank in range(size)]
    answers = ThreadGroup(size).run(lambda rank: work(shards[rank], shards[rank]))
    for rows, result in zip(shards, answers, strict=True):
        for name in ("prototypes", "moments"):
            torch.testing.assert_close(result[name], expected[name], rtol=1e-6, atol=1e-8)
        for name in ("pseudo", "confident", "negatives"):
            assert torch.equal(result[name], expected[name][rows]), name
