"""Gradients summed over ranks while the backward pass is still running."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from bbam_ray import distributed
from bbam_ray.engine.stop_vote import StopVote
from bbam_ray.models.fast_paths import tensor_float32

MESSAGE = 8 << 20  # bytes of gradients in a message


class GradientSum:
    """Sums the gradients of a model over all ranks, in messages that leave during the backward pass.

    The parameters are divided into groups in the opposite order of the model's, so that the first group is
    complete first. A group is sent when all its gradients are there and the groups before it were sent.
    The last one leaves after the backward pass, together with the loss. All ranks send the same messages
    in the same order, also if a parameter has a gradient on some ranks only, or on none.

    The loss of a rank is its share of the global loss, so the sum is the gradient of the global loss.

    Args:
        parameters: of the same model on every rank.
        message: bytes in a message; a group may exceed it by one parameter.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], message: int = MESSAGE) -> None:
        self._trained = [p for p in parameters if p.requires_grad]
        self._groups = list(_groups(self._trained[::-1], message))
        self._group = {id(p): index for index, group in enumerate(self._groups) for p in group}
        self._running = False  # a backward pass whose gradients are summed
        self._missing: list[int] = []  # of each group: gradients that are not there yet
        self._sums: list[Callable[[], list[Tensor]]] = []  # of the groups that were sent
        if distributed.is_active():
            this = weakref.ref(self)
            for parameter in self._trained:
                parameter.register_post_accumulate_grad_hook(lambda p: _note(this, p))

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a loss; call ``finish`` before the next one."""
        self._missing, self._sums = [len(group) for group in self._groups], []
        self._running = True
        try:
            with tensor_float32(loss.device):
                loss.backward()
        finally:
            self._running = False

    def note(self, parameter: nn.Parameter) -> None:
        """A gradient is complete."""
        if not self._running:
            return
        self._missing[self._group[id(parameter)]] -= 1
        while (index := len(self._sums)) < len(self._groups) - 1 and not self._missing[index]:
            self._send(index)

    def _send(self, index: int, *extra: Tensor) -> None:
        gradients = [p.grad for p in self._groups[index] if p.grad is not None]
        self._sums.append(distributed.start_sum(*gradients, *extra))

    @torch.no_grad()
    def finish(self, loss: Tensor, vote: StopVote | None = None) -> Tensor:
        """Wait for the sums; afterwards every parameter has the gradient of the global loss.

        A parameter without a gradient on any rank has none afterwards, as in a single process.

        Args:
            loss: scalar.
            vote: whether training stops; the votes of all ranks are in the last message.

        Returns:
            The sum of the losses; in a single process the loss itself.
        """
        if not distributed.is_active():
            return loss
        kind = self._trained[0]
        missing = [index for index, p in enumerate(self._trained) if p.grad is None]
        has_gradient = torch.ones(len(self._trained), dtype=kind.dtype, device=kind.device)
        for index in missing:
            has_gradient[index] = 0
            self._trained[index].grad = torch.zeros_like(self._trained[index])
        for index in range(len(self._sums), len(self._groups) - 1):
            self._send(index)
        own = kind.new_zeros(1) if vote is None else vote.own().to(kind.dtype)
        whole = loss.detach().reshape(1).to(kind.dtype)
        self._send(len(self._groups) - 1, whole, own, has_gradient)
        *_, total, votes, has_gradient = self._receive()
        if vote is not None:
            vote.note(votes)
        for index in missing:
            if has_gradient[index] == 0:
                self._trained[index].grad = None
        return total.squeeze(0)

    def _receive(self) -> list[Tensor]:
        """Replace all gradients by their sums; returns the content of the last message."""
        summed: list[Tensor] = []
        for group, sums in zip(self._groups, self._sums, strict=True):
            summed = sums()
            gradients = [p.grad for p in group if p.grad is not None]
            torch._foreach_copy_(gradients, summed[: len(group)])
        self._sums = []
        return summed


def _note(this: weakref.ref[GradientSum], parameter: nn.Parameter) -> None:
    if (gradients := this()) is not None:
        gradients.note(parameter)


def _groups(parameters: list[nn.Parameter], message: int) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one dtype with at least ``message`` bytes, the last with the rest."""
    group: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if group and (size >= message or parameter.dtype != group[0].dtype):
            yield group
            group, size = [], 0
        group.append(parameter)
        size += parameter.numel() * parameter.element_size()
    if group:
        yield group
