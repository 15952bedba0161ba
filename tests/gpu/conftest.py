"""The device of the tests in this folder: a GPU, or the CPU with ``BBAM_TEST_DEVICE=cpu``.

On a CPU they prove that the tests work. Without a GPU and without the variable each test is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bbam_ray.engine.trainer import Trainer

Make = Callable[..., Trainer]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device that is tested."""
    chosen = torch.device(os.environ.get("BBAM_TEST_DEVICE", "cuda"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return chosen


@pytest.fixture(scope="session")
def cuda(device: torch.device) -> torch.device:
    """A GPU, for what has no meaning on a CPU."""
    if device.type != "cuda":
        pytest.skip("only on a CUDA device")
    return device


@pytest.fixture(scope="session")
def on_device(device: torch.device, tiny_trainer: Make) -> Make:
    """Returns a function that makes the trainer of a tiny run on the device."""

    def make(**changes: Any) -> Trainer:
        return tiny_trainer(**{"device": device.type, **changes})

    return make


@pytest.fixture(scope="session")
def devices_of() -> Callable[[Any], set[str]]:
    """Returns a function that collects the types of device of all tensors in nested values."""

    def collect(value: Any) -> set[str]:
        if isinstance(value, torch.Tensor):
            return {value.device.type}
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            return set().union(*map(collect, value))
        return set()

    return collect
