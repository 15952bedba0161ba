"""A group of one member that sends every message, as a test of a backend on a single device."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from bbam_ray import distributed


@pytest.fixture
def alone() -> Iterator[None]:
    """This process is the only member of a gloo group, and sends its messages."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    distributed.join(f"127.0.0.1:{port}", 0, 1, backend="gloo", timeout_s=60, send_alone=True)
    yield
    distributed.leave()
    assert not distributed.is_active()


def test_the_run_is_that_of_a_process_without_a_group(
    alone: None, one: dict[str, Any], rank_worker: ModuleType, rank_settings: dict[str, Any]
) -> None:
    assert distributed.is_active()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    # Batch norm over ranks rounds differently, so it stays as it is here and in ``one``.
    trainer = rank_worker.make_trainer(rank_settings, synchronized_batch_norm=False, epochs=5)
    state = rank_worker.train(trainer)["states"][3]
    expected = one["run"]["states"][3]
    for kind in ("weights", "average"):
        for name, tensor in expected[kind].items():
            assert torch.equal(state[kind][name], tensor), name


def test_it_sends_as_many_messages_as_each_of_two(
    alone: None, two: list[Any], rank_worker: ModuleType, rank_settings: dict[str, Any]
) -> None:
    sent = rank_worker.messages_of_two_epochs(rank_settings)
    for rank in two:
        assert rank["messages"] == sent
    warmup, main = sent
    assert warmup["all_reduce float32"] > 0  # gradients and losses
    assert main["all_reduce int64"] > warmup["all_reduce int64"]  # selections of the refresh
    assert main["all_reduce float64"] > 0  # moments
