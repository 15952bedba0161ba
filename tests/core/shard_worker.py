"""Run by test_shards.py and test_messages.py: each rank of a gloo group computes its shard of every case.

Usage: shard_worker.py FOLDER WORLD_SIZE, with cases.pt in FOLDER; rank r writes rank-r.pt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gloo_group import run_script
from torch import Tensor, nn

from bbam_ray import distributed
from bbam_ray.core.angle_histogram import moments_and_histogram
from bbam_ray.core.metrics import multilabel_metrics
from bbam_ray.core.negatives import sample_negatives
from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.statistics import angle_moments
from bbam_ray.engine.gradient_sum import GradientSum

CPU = torch.device("cpu")


def compute(case: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Everything that is sharded, on these rows."""
    features, labels, valid = (case[name][rows] for name in ("features", "labels", "valid"))
    index = rows if case["indexed"] else None
    prototypes = label_prototypes(features, labels, valid)
    moments = angle_moments(features, labels, valid, case["prototypes"])
    pseudo, confident = assign_pseudo_labels(
        case["scores"][rows],
        case["frequency"],
        positive_keep=case["positive_keep"],
        negative_keep=case["negative_keep"],
        index=index,
    )
    return {
        "prototypes": prototypes,
        "count": moments.count,
        "mean": moments.mean,
        "m2": moments.m2,
        "pseudo": pseudo,
        "confident": confident,
        "negatives": sample_negatives(
            features, case["prototypes"], labels, valid, case["ratio"], index
        ),
        "metrics": multilabel_metrics(
            case["scores"][rows], labels, thresholds=torch.tensor([0.1, 0.0, -0.2, 0.25])
        ),
    }


@contextmanager
def counted_messages() -> Iterator[list[tuple[str, int, int]]]:
    """Kind, number of entries and bytes of each message that is sent."""
    seen: list[tuple[str, int, int]] = []
    kinds = ("all_reduce", "all_gather", "broadcast")
    originals = {kind: getattr(dist, kind) for kind in kinds}

    def counting(kind: str) -> Callable[..., Any]:
        def send(*args: Any, **kwargs: Any) -> Any:
            tensor = args[1] if kind == "all_gather" else args[0]
            seen.append((kind, tensor.numel(), tensor.numel() * tensor.element_size()))
            return originals[kind](*args, **kwargs)

        return send

    for kind in kinds:
        setattr(dist, kind, counting(kind))
    try:
        yield seen
    finally:
        for kind in kinds:
            setattr(dist, kind, originals[kind])


def traffic(rank: int, world_size: int, num_samples: int, *, tied: bool) -> list[Any]:
    """Messages of one refresh of N samples over all ranks; distinct scores, or all of them equal."""
    g = torch.Generator().manual_seed(num_samples)
    num_labels, width = 4, 6
    scores = torch.stack([torch.randperm(num_samples, generator=g) for _ in range(num_labels)], 1)
    features = torch.randn(num_samples, width, generator=g)
    prototypes = torch.randn(num_labels, width, generator=g)
    if tied:
        scores, prototypes = torch.zeros_like(scores), torch.zeros_like(prototypes)
    shard = slice(rank, None, world_size)
    with counted_messages() as messages:
        pseudo, confident = assign_pseudo_labels(
            scores[shard].float() / num_samples, torch.full((4,), 0.25), negative_keep=0.5
        )
        label_prototypes(features[shard], pseudo, confident)
        moments_and_histogram(features[shard], pseudo, confident, prototypes)
        sample_negatives(features[shard], prototypes, pseudo, confident, 0.5)
    return messages


class Several(nn.Module):
    """Parameters of several shapes, types and memory layouts; one does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(5, 3))
        self.second = nn.Parameter(torch.zeros(7))
        self.wide = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.image = nn.Parameter(torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last))
        self.fixed = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.idle = nn.Parameter(torch.zeros(2))


def gradients(rank: int, message: int) -> dict[str, Any]:
    """Summed (r + 1) (0, 1, 2, ...) of rank r; ``second`` has none on rank 1, ``idle`` nowhere."""
    module = Several()
    loss = torch.zeros((), dtype=torch.float64)
    for parameter in module.parameters():
        if parameter.requires_grad and not (
            parameter is module.idle or (parameter is module.second and rank == 1)
        ):
            numbers = torch.arange(parameter.numel(), dtype=parameter.dtype).view(parameter.shape)
            loss = loss + (parameter * numbers).sum() * (rank + 1)
    summed = GradientSum(module.parameters(), message)
    with counted_messages() as messages:
        summed.backward(loss)
        total = summed.finish(torch.tensor(0.5 * (rank + 1)))
    by_name = {name: p.grad for name, p in module.named_parameters()}
    return {"loss": total, "gradients": by_name, "messages": messages}


def overlapped(rank: int) -> list[int]:
    """Messages that were sent when the gradient reached each of four layers, the last layer first."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
    summed, sent = GradientSum(layers.parameters(), 100), []
    with counted_messages() as messages:
        values = torch.randn(3, 6)
        for layer in layers:
            values = layer(values)
            values.register_hook(lambda gradient: sent.append(len(messages)))
        loss = values.square().sum()
        summed.backward(loss)
        summed.finish(loss)
        sent.append(len(messages))
    return sent


def copied(rank: int) -> dict[str, Tensor]:
    """The state of a module that every rank filled with its own numbers."""
    torch.manual_seed(rank)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    module(torch.randn(5, 3, 6, 6))
    distributed.broadcast_module(module)
    return module.state_dict()


def small(rank: int, world_size: int) -> dict[str, Any]:
    """Collectives outside of the mathematics."""
    count = 0 if rank == 1 else rank + 2
    numbers = torch.arange(count) + 10 * rank
    rows = torch.stack([numbers, -numbers])  # its transpose is not contiguous
    return {
        "counts": distributed.row_counts(10 * rank, CPU),
        "index": distributed.global_index(rank + 1, CPU),
        "sums": distributed.all_reduce_sum(torch.ones(2) * rank, torch.full((3,), rank + 1.0)),
        "gathered": distributed.gather_rows(
            numbers, rows.T.float(), numbers.to(torch.int8), numbers.view(-1, 1, 1) % 2 == 0
        ),
        "zero": distributed.broadcast_float(1 / 3 + rank, CPU),
        "minus infinity": distributed.broadcast_float(float("-inf") if rank == 0 else 0.0, CPU),
        "rank": (distributed.rank(), distributed.world_size(), distributed.is_active()),
        "copied": copied(rank),
        "gradients": {size: gradients(rank, size) for size in (16, 1 << 20)},
        "overlapped": overlapped(rank),
        "traffic": {
            (number, tied): traffic(rank, world_size, number, tied=tied)
            for number in (3000, 6000)
            for tied in (False, True)
        },
    }


def work(rank: int, world_size: int, folder: Path) -> Any:
    cases = torch.load(folder / "cases.pt")
    return [compute(case, case["shards"][rank]) for case in cases], small(rank, world_size)


if __name__ == "__main__":
    run_script(work)
