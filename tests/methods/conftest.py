"""Stand-ins for a network and for the samples of a step, shared by the tests of the single methods."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bbam_ray.methods.method import Minibatch, TaskInfo


class FixedCosines(nn.Module):
    """A network whose inputs are the cosines and the features that it returns."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs


@pytest.fixture
def fixed_cosines() -> FixedCosines:
    return FixedCosines()


@pytest.fixture(scope="session")
def samples() -> Callable[..., Minibatch]:
    """Makes a minibatch from its views; a request for another view is an error."""

    def make(total: int | None = None, rows: list[int] | None = None, **views: Tensor) -> Minibatch:
        count = len(next(iter(views.values())))
        places = torch.arange(count) if rows is None else torch.tensor(rows, dtype=torch.int64)
        return Minibatch(places, count if total is None else total, views.__getitem__)

    return make


@pytest.fixture(scope="session")
def task() -> Callable[..., TaskInfo]:
    """Makes a TaskInfo from labels; a step has 4 and 12 samples."""
    return lambda labels: TaskInfo(labels.shape[1], labels, labels.double().mean(0), 4, 12)


@pytest.fixture(scope="session")
def random_cosines() -> Callable[..., Tensor]:
    """Draws (count, labels) cosines in +-0.95 that require a gradient."""

    def draw(seed: int, count: int, labels: int = 3, span: float = 0.95) -> Tensor:
        uniform = torch.rand(count, labels, generator=torch.Generator().manual_seed(seed))
        return ((2 * uniform - 1) * span).requires_grad_()

    return draw
