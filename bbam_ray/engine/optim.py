"""Optimizer, learning-rate schedule, precision and the check that numbers stay finite."""

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
    """Share of the peak learning rate at a step of a phase (one-cycle policy, Smith 2018).

    Rises along a cosine from 1/25 of the peak during the first ``pct_start`` of the steps, then falls
    along a cosine to 1/25 of 1e-4 of it. A pure function of the step, so there is nothing to save.
    """
    place = (step + 0.5) / total
    low, lowest = 1 / 25, 1e-4 / 25
    if place < pct_start:
        return low + (1 - low) * (1 - math.cos(math.pi * place / pct_start)) / 2
    fallen = (place - pct_start) / (1 - pct_start)
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * fallen)) / 2


def parameter_groups(model: Network, backbone_rate: float) -> list[dict[str, Any]]:
    """The backbone, and everything else, each with its ``share`` of the schedule's learning rate.

    Args:
        model: its parameters come in the order of ``model.parameters()``.
        backbone_rate: the backbone's learning rate / that of projector and head.
    """
    backbone = list(model.backbone.parameters())
    seen = {id(parameter) for parameter in backbone}
    others = [parameter for parameter in model.parameters() if id(parameter) not in seen]
    return [{"params": backbone, "share": backbone_rate}, {"params": others, "share": 1.0}]


class Precision:
    """Autocast to bfloat16, or to float16 with loss scaling on a GPU that lacks bfloat16.

    Args:
        device: that is trained on.
        on_gpu, on_cpu: whether there is autocast on such a device.
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
    """Backward and one optimizer step; raises before the weights move if anything is not finite.

    Args:
        loss: of this step; this rank's share where there are several.
        where: names the step in the message.
    """
    optimizer.zero_grad(set_to_none=True)
    precision.scaler.scale(loss).backward()
    loss = distributed.sum_gradients(model.parameters(), loss)
    finite = torch.isfinite(loss.detach())
    if not precision.scaler.is_enabled():  # a float16 overflow is the scaler's own business
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        finite = finite & torch.isfinite(torch.nn.utils.get_total_norm(gradients))
    if not bool(finite):  # the same on every rank, since it is a matter of the sums
        raise NonFiniteError(
            f"loss {loss.item():g} or its gradient is not finite at {where}; "
            "lower learning_rate or scale"
        )
    precision.scaler.step(optimizer)
    precision.scaler.update()
