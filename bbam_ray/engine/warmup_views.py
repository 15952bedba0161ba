"""Warm-up steps whose forward pass also sees the weak view: the setting ``warmup_views``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from torch import Tensor, nn

from bbam_ray.methods.method import Minibatch, concat_views


def forward_of(
    views: Literal["strong", "both"], model: nn.Module, labeled: Minibatch
) -> AbstractContextManager[None]:
    """The block in which the loss of a warm-up step is computed; see ``beside_weak_view``."""
    return nullcontext() if views == "strong" else beside_weak_view(model, labeled)


@contextmanager
def beside_weak_view(model: nn.Module, labeled: Minibatch) -> Iterator[None]:
    """Within the block, a forward pass of the strong view is one of both views.

    Batch norm then normalises by the mean and variance of both, and its running statistics are of both.
    The weak view follows the strong one in the batch, and its outputs are dropped, so a method sees no
    difference. Source: docs/method.md, section 7.

    Args:
        model: maps inputs to features (B, D) and cosines (B, K).
        labeled: the samples of the step.
    """
    sizes: list[int] = []

    def add(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        sizes.append(len(inputs[0]))
        return (concat_views(inputs[0], labeled.view("weak")),)

    def drop(_: nn.Module, inputs: Any, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        size = sizes.pop()
        return tuple(output[:size] for output in outputs)

    hooks = model.register_forward_pre_hook(add), model.register_forward_hook(drop)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
