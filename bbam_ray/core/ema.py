"""Exponential moving average of a module's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class ExponentialAverage(Generic[M]):
    """A frozen copy of a module whose weights are the moving average of the module's weights.

    average <- d_t average + (1 - d_t) current at update t = 0, 1, ..., with the warm-up
    d_t = min(d, (1 + t) / (10 + t)), so that a short run does not keep its random start; without it
    d_t = d. Floating-point parameters and buffers are averaged, others (counters) are copied.

    Args:
        module: the module to follow.
        decay: d in [0, 1).
        warmup: whether the decay has a warm-up.

    Source: docs/method.md, section 7.

    Examples:
        >>> layer = nn.Linear(1, 1)
        >>> average = ExponentialAverage(layer, decay=0.5)  # a copy: its weight is that of the layer
        >>> _ = layer.weight.data.fill_(2.0), average.module.weight.data.fill_(1.0)
        >>> average.update()  # the first decay of the warm-up is 0.1
        >>> round(average.module.weight.item(), 4)
        1.9
    """

    def __init__(self, module: M, decay: float, *, warmup: bool = True) -> None:
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay, self.warmup = decay, warmup
        self.updates = 0
        self._pair(module)

    def _pair(self, source: nn.Module) -> None:
        pairs = list(zip(_tensors(self.module), _tensors(source), strict=True))
        self._averaged = [(a, s) for a, s in pairs if a.is_floating_point()]
        self._copied = [(a, s) for a, s in pairs if not a.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the current weights of the followed module."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages = [a for a, _ in self._averaged]
        torch._foreach_lerp_(averages, [s for _, s in self._averaged], 1 - decay)
        for average, source in self._copied:
            average.copy_(source)

    @torch.no_grad()
    def restart(self) -> None:
        """Start again from the current weights and buffers of the followed module."""
        for average, source in (*self._averaged, *self._copied):
            average.copy_(source)
        self.updates = 0

    def state_dict(self) -> dict[str, object]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.module.load_state_dict(state["module"])  # type: ignore[arg-type]
        self.updates = int(state["updates"])  # type: ignore[call-overload]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
