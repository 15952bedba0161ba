"""All collective operations: the only file that calls torch.distributed.

In a single process every function is a no-op, so other code is written once: it works on *this rank's
shard* of the rows and adds up sums over ranks. Collectives use the default process group.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bbam_ray.errors import WorkerLostError

_spent = 0.0  # seconds that this process has spent in collectives
_sent: Counter[str] = Counter()
_send_alone = False
_timeout: timedelta | None = None
#: the default group and the one for ``start_sum``, whose messages may overtake those of the first
_groups: tuple[Any, Any] | None = None


def join(
    address: str,
    rank: int,
    world_size: int,
    *,
    backend: str,
    timeout_s: float,
    send_alone: bool = False,
) -> None:
    """Join the default process group; every rank calls it.

    Args:
        address: of rank 0, "host:port".
        rank: of this process.
        world_size: number of processes.
        backend: "nccl" for one GPU per rank, else "gloo".
        timeout_s: a collective that waits longer than this for another rank raises an error.
        send_alone: send every message in a group of one member too. For tests: a single GPU can then
            show that the backend takes all messages of a training.

    Raises:
        WorkerLostError: another rank did not join in time.
    """
    global _send_alone, _timeout
    _timeout = timedelta(seconds=timeout_s)
    with _waiting():
        dist.init_process_group(
            backend,
            store=_store(address, rank, world_size, _timeout),
            rank=rank,
            world_size=world_size,
            timeout=_timeout,
        )
    _send_alone = send_alone


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
    global _groups, _send_alone
    _groups, _send_alone = None, False
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _waiting() -> Iterator[None]:
    """Measure the time of a collective, and raise WorkerLostError if another rank died or timed out."""
    global _spent
    started = time.perf_counter()
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise WorkerLostError(f"another worker of this run is lost ({reason})") from error
    finally:
        _spent += time.perf_counter() - started


@contextmanager
def _message(kind: str, tensor: Tensor) -> Iterator[None]:
    """Wrap the sending of a tensor, and count it."""
    _sent[f"{kind} {str(tensor.dtype).removeprefix('torch.')}"] += 1
    with _waiting():
        yield


def messages_sent() -> dict[str, int]:
    """Number of collectives that this process has started, by kind and dtype, "all_reduce float32"."""
    return dict(_sent)


def nccl_available() -> bool:
    """Whether this build of torch supports NCCL."""
    return dist.is_available() and dist.is_nccl_available()


def seconds_spent() -> float:
    """Seconds that this process has spent in collectives since it started, waiting included.

    Of ``start_sum`` it counts the waiting at the end.
    With NCCL collectives are asynchronous, and the GPU's waiting time is not included.
    """
    return _spent


def is_active() -> bool:
    """Whether a process group exists that sends messages: with more than one member, unless in a test."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    return _send_alone or dist.get_world_size() > 1


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
    with _message("all_reduce", packed):
        dist.all_reduce(packed)
    return _unpacked(packed, [t.shape for t in tensors])


def _unpacked(packed: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = packed.split([shape.numel() for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def start_sum(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Start to sum tensors over all ranks in one message, while this process computes.

    These messages have a group of their own. All ranks start them in the same order, but other collectives
    may come before them on one rank and after them on another, except with NCCL: two of its groups must
    not wait for each other.

    Args:
        tensors: as for ``all_reduce_sum``; they may change as soon as this returns.

    Returns:
        A function that waits for the message and returns the sums, as ``all_reduce_sum`` does.
    """
    global _groups
    if not is_active():
        return lambda: list(tensors)
    if _groups is None or _groups[0] is not dist.group.WORLD:
        with _waiting():
            _groups = dist.group.WORLD, dist.new_group(timeout=_timeout)
    group: Any = _groups[1]
    packed, shapes = torch.cat([t.reshape(-1) for t in tensors]), [t.shape for t in tensors]
    with _message("all_reduce", packed):
        work: Any = dist.all_reduce(packed, group=group, async_op=True)

    def sums() -> list[Tensor]:
        with _waiting():
            work.wait()
        return _unpacked(packed, shapes)

    return sums


def row_counts(count: int, device: torch.device) -> list[int]:
    """Number of rows that each rank holds, in rank order."""
    if not is_active():
        return [count]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[rank()] = count
    with _message("all_reduce", counts):
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
    with _message("all_gather", padded):
        dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def broadcast_float(value: float, device: torch.device) -> float:
    """The value of rank 0, so that all ranks take the same decision."""
    if not is_active():
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    with _message("broadcast", tensor):
        dist.broadcast(tensor, src=0)
    return float(tensor.item())


def broadcast_module(module: nn.Module) -> None:
    """Copy the parameters and buffers of rank 0's module to all ranks, in place."""
    if is_active():
        with torch.no_grad():
            for tensor in module.state_dict().values():
                with _message("broadcast", tensor):
                    dist.broadcast(tensor, src=0)
