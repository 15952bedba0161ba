"""The only file that calls torch.distributed.

Every function is a no-op in one process, so the rest of the code is written once: it takes *this
rank's shard* of the rows and combines sums. Reductions run over the default process group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def is_active() -> bool:
    """Whether a process group with more than one member exists."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    return dist.get_world_size() if is_active() else 1


def all_reduce_sum(*tensors: Tensor) -> list[Tensor]:
    """Sums of same-shaped tensors over all ranks, in one message.

    Args:
        tensors: any shapes, one dtype and one device; the inputs are left as they are.

    Returns:
        New tensors (the inputs themselves in one process), in the order given.
    """
    if not is_active():
        return list(tensors)
    packed = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(packed)
    parts = packed.split([t.numel() for t in tensors])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]


def all_reduce_max(value: int, device: torch.device) -> int:
    """Largest of one non-negative integer per rank."""
    if not is_active():
        return value
    tensor = torch.tensor([value], dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


def row_counts(count: int, device: torch.device) -> list[int]:
    """Number of rows that each rank holds, in rank order."""
    if not is_active():
        return [count]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[rank()] = count
    dist.all_reduce(counts)
    return [int(c) for c in counts.tolist()]


def global_index(count: int, device: torch.device) -> Tensor:
    """Rank-ordered positions of this rank's rows in the union of all shards, (count,) int64."""
    start = sum(row_counts(count, device)[: rank()])
    return torch.arange(start, start + count, dtype=torch.int64, device=device)


def any_rank(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """For each flag, whether it is set on at least one rank (all ranks learn the same answer)."""
    if not is_active():
        return list(flags)
    tensor = torch.tensor([float(f) for f in flags], device=device)
    dist.all_reduce(tensor)
    return [value > 0 for value in tensor.tolist()]
