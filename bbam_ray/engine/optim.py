"""Optimizer step, learning-rate schedule and precision."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from bbam_ray import distributed
from bbam_ray.errors import NonFiniteError
from bbam_ray.models import Network


def one_cycle(step: int, total: int, pct_start: float) -> float:
    """Share of the peak learning rate at a step of a phase (one-cycle policy).

    Rises along a half cosine from 1/25 to 1 during the first ``pct_start`` of the steps, then falls along
    a half cosine to 1e-4 / 25. A pure function of the step, so no state has to be saved.

    Args:
        step: from 0 to total - 1.
        total: steps of the phase.
        pct_start: in (0, 1), the share of the steps with a rising rate.

    Returns:
        In (0, 1].

    Source: [A disciplined approach to neural network hyper-parameters: Part
    1](https://arxiv.org/abs/1803.09820); docs/method.md, section 7.
    """
    progress = (step + 0.5) / total
    low, lowest = 1 / 25, 1e-4 / 25
    if progress < pct_start:
        return low + (1 - low) * (1 - math.cos(math.pi * progress / pct_start)) / 2
    falling = (progress - pct_start) / (1 - pct_start)
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * falling)) / 2


def parameter_groups(model: Network, backbone_rate: float) -> list[dict[str, Any]]:
    """Parameter groups of backbone and rest, each with its ``share`` of the scheduled learning rate.

    Args:
        model: the groups keep the order of ``model.parameters()``.
        backbone_rate: learning rate of the backbone / learning rate of projector and head.
    """
    backbone = list(model.backbone.parameters())
    in_backbone = {id(parameter) for parameter in backbone}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in in_backbone]
    return [{"params": backbone, "share": backbone_rate}, {"params": rest, "share": 1.0}]


class Precision:
    """Autocast to bfloat16, or to float16 with loss scaling on a GPU that lacks bfloat16.

    Args:
        device: of the training.
        on_gpu: use autocast if the device is a GPU.
        on_cpu: use autocast if the device is a CPU.
    """

    def __init__(self, device: torch.device, on_gpu: bool, on_cpu: bool = False) -> None:
        self.enabled = on_gpu if device.type == "cuda" else on_cpu
        self.device = device
        half = device.type != "cuda" or not self.enabled or torch.cuda.is_bf16_supported()
        self.dtype = torch.bfloat16 if half else torch.float16
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=self.enabled and self.dtype == torch.float16
        )

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.enabled)


def apply_step(
    loss: Tensor,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    where: str,
) -> None:
    """Backward pass and one optimizer step.

    Args:
        loss: of this step; this rank's share if there are several ranks.
        model: its gradients are summed over ranks.
        optimizer: of the model's parameters.
        precision: scales the loss under float16.
        where: names the step in the error message.

    Raises:
        NonFiniteError: the loss or its gradient is not finite; the weights have not changed.
    """
    optimizer.zero_grad(set_to_none=True)
    precision.scaler.scale(loss).backward()
    loss = distributed.sum_gradients(model.parameters(), loss)
    finite = torch.isfinite(loss.detach())
    if not precision.scaler.is_enabled():  # the scaler handles an overflow of float16
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        finite = finite & torch.isfinite(torch.nn.utils.get_total_norm(gradients))
    if not bool(finite):  # equal on every rank, since it depends on the sums only
        raise NonFiniteError(
            f"loss {loss.item():g} or its gradient is not finite at {where}; "
            "lower learning_rate or scale"
        )
    precision.scaler.step(optimizer)
    precision.scaler.update()
