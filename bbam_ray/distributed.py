"""The only file that calls torch.distributed.

Every function is a no-op in one process, so the rest of the code is written once: it takes *this
rank's shard* of the rows and combines sums. Reductions run over the default process group.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bbam_ray.errors import WorkerLostError

_GRADIENT_MESSAGE = 32 << 20  # bytes of gradients that travel in one message
_spent = 0.0  # seconds that this process has spent in messages


def join(address: str, rank: int, world_size: int, *, backend: str, timeout_s: float) -> None:
    """Become a member of the default process group; every rank calls it.

    Args:
        address: where rank 0 listens, "host:port".
        rank, world_size: of this process.
        backend: "nccl" for one GPU per rank, else "gloo".
        timeout_s: a collective that waits longer for another rank raises instead of hanging.
    """
    with _all_ranks():
        dist.init_process_group(
            backend,
            store=_store(address, rank, world_size, timedelta(seconds=timeout_s)),
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_s),
        )


def _store(address: str, rank: int, world_size: int, timeout: timedelta) -> Any:
    """What the ranks find each other by. Torch would listen on every address of the machine, which on the
    loopback address nobody needs."""
    host, _, port = address.rpartition(":")
    listening = None
    if rank == 0 and host.startswith("127."):
        try:
            listening = socket.create_server((host, int(port)), backlog=1024).detach()
        except OSError as error:  # as torch has it
            raise RuntimeError(f"{address}: {error.strerror}") from error
    return dist.TCPStore(  # type: ignore[attr-defined]  # which torch does not say
        host,
        int(port),
        world_size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=listening,
    )


def leave() -> None:
    """End the membership in the default process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _all_ranks() -> Iterator[None]:
    """Around every message: it fails only when another rank is gone or does not answer in time."""
    global _spent
    started = time.perf_counter()
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise WorkerLostError(f"another worker of this run is lost ({reason})") from error
    finally:
        _spent += time.perf_counter() - started


def nccl_available() -> bool:
    """Whether this torch could use NCCL between GPUs."""
    return dist.is_available() and dist.is_nccl_available()


def seconds_spent() -> float:
    """Seconds that this process has spent sending and waiting for others, since it began.

    With NCCL the host does not wait, and what a GPU waits is not in it.
    """
    return _spent


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
    with _all_ranks():
        dist.all_reduce(packed)
    parts = packed.split([t.numel() for t in tensors])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]


def row_counts(count: int, device: torch.device) -> list[int]:
    """Number of rows that each rank holds, in rank order."""
    if not is_active():
        return [count]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[rank()] = count
    with _all_ranks():
        dist.all_reduce(counts)
    return [int(c) for c in counts.tolist()]


def global_index(count: int, device: torch.device) -> Tensor:
    """Rank-ordered positions of this rank's rows in the union of all shards, (count,) int64."""
    start = sum(row_counts(count, device)[: rank()])
    return torch.arange(start, start + count, dtype=torch.int64, device=device)


def gather_rows(*tensors: Tensor) -> list[Tensor]:
    """Each (N, ...) tensor's rows of all ranks in rank order, on every rank.

    Shards may be uneven or empty. Only for what is small: validation or test scores, never those of
    the unlabelled samples.
    """
    if not is_active():
        return list(tensors)
    return [_gather(tensor.contiguous()) for tensor in tensors]


def _gather(tensor: Tensor) -> Tensor:
    counts = row_counts(tensor.shape[0], tensor.device)
    longest = max(counts)
    padded = tensor.new_zeros((longest, *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    parts = [torch.empty_like(padded) for _ in counts]
    with _all_ranks():
        dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def broadcast_float(value: float, device: torch.device) -> float:
    """Rank 0's value, so that every rank decides alike."""
    if not is_active():
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    with _all_ranks():
        dist.broadcast(tensor, src=0)
    return float(tensor.item())


def broadcast_module(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0's module."""
    if is_active():
        with torch.no_grad(), _all_ranks():
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
    """Sum gradients over all ranks in place, in few messages; the loss travels with the first.

    Each rank's loss is its share of the global loss, so the sum is the gradient of the global loss.

    Args:
        parameters: those of the same model on every rank; one without gradient counts as zero.
        loss: scalar.

    Returns:
        The sum of the losses (the loss itself in one process).
    """
    if not is_active():
        return loss
    trained = [p for p in parameters if p.requires_grad]
    missing = [place for place, p in enumerate(trained) if p.grad is None]
    total = loss.detach().clone().reshape(1).to(trained[0].dtype)
    have = torch.ones(len(trained), dtype=total.dtype, device=total.device)
    for place in missing:
        have[place], trained[place].grad = 0, torch.zeros_like(trained[place])
    for bucket in _buckets([total, have, *(p.grad for p in trained if p.grad is not None)]):
        for tensor, summed in zip(bucket, all_reduce_sum(*bucket), strict=True):
            tensor.copy_(summed)
    for place in missing:
        if (
            have[place] == 0
        ):  # on every rank, so that the optimizer leaves it alone as in one process
            trained[place].grad = None
    return total.squeeze(0)


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one dtype, a message's worth at a time."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size >= _GRADIENT_MESSAGE or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket
