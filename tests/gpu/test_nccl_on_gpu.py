"""NCCL takes every message of a training: a group of one member that sends them all."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch

from bbam_ray import distributed
from bbam_ray.engine.trainer import Trainer

pytestmark = pytest.mark.gpu

METHODS = ["bbam", "cap", "flatmatch", "drml", "mime", "softmatch", "supervised", "d2l", "dicap"]


@pytest.fixture
def joined() -> Iterator[Callable[[str], None]]:
    """Returns a function that joins a group of one member, with the name of the backend."""

    def join(backend: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        distributed.join(address, 0, 1, backend=backend, timeout_s=120, send_alone=True)

    yield join
    distributed.leave()


@pytest.mark.parametrize("method", METHODS)
def test_nccl_sends_as_many_messages_as_gloo(
    method: str,
    joined: Callable[[str], None],
    device: torch.device,
    on_device: Callable[..., Trainer],
    run_to_end: Callable,
) -> None:
    """Of every kind and type, without those of batch norm, for which torch has its own on GPUs."""
    counts, losses = [], []
    for backend in ("gloo", "nccl" if device.type == "cuda" else "gloo"):
        joined(backend)
        before = Counter(distributed.messages_sent())
        trainer = on_device(method=method, synchronized_batch_norm=False, amp=False)
        records = run_to_end(trainer)
        counts.append(Counter(distributed.messages_sent()) - before)
        losses.append([record.scalars["loss"] for record in records])
        distributed.leave()
    assert counts[0] == counts[1]
    assert counts[0]["all_reduce float32"] > 0 and counts[0]["broadcast float32"] > 0
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
