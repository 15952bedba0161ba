"""All collective operations: the only file that calls torch.distributed.

In a single process every function is a no-op, so other code is written once: it works on *this rank's
shard* of the rows and adds up sums over ranks. Collectives use the default process group.
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

_GRADIENT_MESSAGE = 32 << 20  # bytes of gradients per collective
_spent = 0.0  # seconds that this process has spent in collectives


def join(address: str, rank: int, world_size: int, *, backend: str, timeout_s: float) -> None:
    """Join the default process group; every rank calls it.

    Args:
        address: of rank 0, "host:port".
        rank: of this process.
        world_size: number of processes.
        backend: "nccl" for one GPU per rank, else "gloo".
        timeout_s: a collective that waits longer than this for another rank raises an error.

    Raises:
        WorkerLostError: another rank did not join in time.
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
    """The key-value store through which the ranks find each other.

    By default torch listens on every address of the machine; for a loopback address this listens on that
    one only.
    """
    host, _, port = address.rpartition(":")
    listening = None
    if rank == 0 and host.startswith("127."):
        try:
            listening = socket.create_server((host, int(port)), backlog=1024).detach()
        except OSError as error:  # the error class that torch raises
            raise RuntimeError(f"{address}: {error.strerror}") from error
    return dist.TCPStore(  # type: ignore[attr-defined]  # missing in torch's stubs
        host,
        int(port),
        world_size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=listening,
    )


def leave() -> None:
    """Leave the default process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _all_ranks() -> Iterator[None]:
    """Wrap a collective: measure its time, and raise WorkerLostError if another rank died or timed out."""
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
    """Whether this build of torch supports NCCL."""
    return dist.is_available() and dist.is_nccl_available()


def seconds_spent() -> float:
    """Seconds that this process has spent in collectives since it started, waiting included.

    With NCCL collectives are asynchronous, and the waiting time of the GPU is not included.
    """
    return _spent


def is_active() -> bool:
    """Whether a process group with more than one member exists."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Rank of this process; 0 in a single process."""
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    """Number of processes; 1 in a single process."""
    return dist.get_world_size() if is_active() else 1


def all_reduce_sum(*tensors: Tensor) -> list[Tensor]:
    """Sum tensors over all ranks, in one collective.

    Args:
        tensors: of any shapes, each the same on all ranks; one dtype and one device. Not changed.

    Returns:
        New tensors in the same order; in a single process the inputs themselves.
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
    """Positions of this rank's rows in the union of all shards in rank order, (count,) int64."""
    start = sum(row_counts(count, device)[: rank()])
    return torch.arange(start, start + count, dtype=torch.int64, device=device)


def gather_rows(*tensors: Tensor) -> list[Tensor]:
    """Gather the rows of (N, ...) tensors from all ranks, in rank order, on every rank.

    Shards may be uneven or empty. For validation and test scores. Of unlabelled samples only the
    neighbour graph (``core.graph``) gathers anything, since any two samples may be neighbours.
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
    """The value of rank 0, so that all ranks take the same decision."""
    if not is_active():
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    with _all_ranks():
        dist.broadcast(tensor, src=0)
    return float(tensor.item())


def broadcast_module(module: nn.Module) -> None:
    """Copy the parameters and buffers of rank 0's module to all ranks, in place."""
    if is_active():
        with torch.no_grad(), _all_ranks():
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
    """Sum gradients over all ranks in place, in few collectives; the loss is part of the first.

    The loss of a rank is its share of the global loss, so the sum is the gradient of the global loss.

    Args:
        parameters: of the same model on every rank; a missing gradient counts as zero.
        loss: scalar.

    Returns:
        The sum of the losses; in a single process the loss itself.
    """
    if not is_active():
        return loss
    trained = [p for p in parameters if p.requires_grad]
    missing = [index for index, p in enumerate(trained) if p.grad is None]
    total = loss.detach().clone().reshape(1).to(trained[0].dtype)
    have = torch.ones(len(trained), dtype=total.dtype, device=total.device)
    for index in missing:
        have[index], trained[index].grad = 0, torch.zeros_like(trained[index])
    for bucket in _buckets([total, have, *(p.grad for p in trained if p.grad is not None)]):
        for tensor, summed in zip(bucket, all_reduce_sum(*bucket), strict=True):
            tensor.copy_(summed)
    for index in missing:
        if have[index] == 0:  # on all ranks: the optimizer skips it, as in a single process
            trained[index].grad = None
    return total.squeeze(0)


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Group consecutive tensors of one dtype into collectives of about ``_GRADIENT_MESSAGE`` bytes."""
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
