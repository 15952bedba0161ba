"""Optimizer step, learning-rate schedule and precision."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from bbam_ray.config import TrainingConfig
from bbam_ray.engine.gradient_sum import GradientSum
from bbam_ray.engine.stop_vote import StopVote
from bbam_ray.errors import NonFiniteError
from bbam_ray.models import Network


def one_cycle(step: int, total: int, pct_start: float) -> float:
    """Share of the peak learning rate at a step of a phase (one-cycle policy).

    Rises along a half cosine from 1/25 to 1 during the first ``pct_start`` of the steps, then falls along
    a half cosine to 1e-4 / 25. A pure function of the step, so no state has to be saved. It is the
    schedule of torch's ``OneCycleLR``, taken in the middle of each step.

    Args:
        step: from 0 to total - 1.
        total: steps of the cycle.
        pct_start: in (0, 1), the share of the steps with a rising rate.

    Returns:
        In (0, 1].

    Source: [A disciplined approach to neural network hyper-parameters: Part
    1](https://arxiv.org/abs/1803.09820); docs/method.md, section 7.
    """
    height, rises = _height(step, total, pct_start)
    lowest = 1 / 25 if rises else 1e-4 / 25
    return lowest + (1 - lowest) * height


def one_cycle_beta1(step: int, total: int, pct_start: float) -> float:
    """beta1 of AdamW at a step of a one-cycle phase: 0.95, 0.85 at the peak learning rate, and 0.95 again.

    It moves against the learning rate, along the same half cosines, as in torch's ``OneCycleLR`` with
    ``cycle_momentum``. Arguments and source are those of ``one_cycle``.
    """
    height, _ = _height(step, total, pct_start)
    return 0.95 - (0.95 - 0.85) * height


def _height(step: int, total: int, pct_start: float) -> tuple[float, bool]:
    """Height in [0, 1] of the cycle in the middle of a step, and whether it rises there."""
    progress = (step + 0.5) / total
    if progress < pct_start:
        return (1 - math.cos(math.pi * progress / pct_start)) / 2, True
    falling = (progress - pct_start) / (1 - pct_start)
    return (1 + math.cos(math.pi * falling)) / 2, False


def set_rates(
    optimizer: torch.optim.Optimizer, common: TrainingConfig, peak: float, step: int, cycle: int
) -> None:
    """Set the learning rate, and beta1 with ``cycle_momentum``, of a step.

    Args:
        optimizer: with the groups of ``parameter_groups``.
        common: of the run.
        peak: highest learning rate of the phase.
        step: of the phase, from 0.
        cycle: steps of the phase's cycle.
    """
    rate = peak * one_cycle(step, cycle, common.pct_start)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
        if common.cycle_momentum:
            beta1 = one_cycle_beta1(step, cycle, common.pct_start)
            group["betas"] = beta1, group["betas"][1]


def parameter_groups(model: Network, backbone_rate: float) -> list[dict[str, Any]]:
    """Parameter groups of backbone and rest, each with its ``share`` of the scheduled learning rate.

    Args:
        model: the groups keep the order of ``model.parameters()``.
        backbone_rate: learning rate of the backbone / learning rate of projector and head; 0 leaves the
            backbone out.
    """
    backbone = list(model.backbone.parameters())
    in_backbone = {id(parameter) for parameter in backbone}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in in_backbone]
    groups: list[dict[str, Any]] = [{"params": rest, "share": 1.0}]
    return [{"params": backbone, "share": backbone_rate}, *groups] if backbone_rate else groups


class Precision:
    """Autocast to bfloat16, or to float16 with loss scaling on a GPU that lacks bfloat16.

    Args:
        device: of the training.
        on_gpu: use autocast if the device is a GPU.
        on_cpu: use autocast if the device is a CPU.
        float16: use float16 on every GPU, and start its loss scale again in every epoch.
    """

    def __init__(
        self, device: torch.device, on_gpu: bool, on_cpu: bool = False, *, float16: bool = False
    ) -> None:
        self.enabled = on_gpu if device.type == "cuda" else on_cpu
        self.device = device
        is_gpu = device.type == "cuda" and self.enabled
        self._restarts = is_gpu and float16
        half = is_gpu and (float16 or not torch.cuda.is_bf16_supported())
        self.dtype = torch.float16 if half else torch.bfloat16
        self.scaler = self._new_scaler()

    def _new_scaler(self) -> torch.amp.GradScaler:
        scales = self.enabled and self.dtype == torch.float16
        return torch.amp.GradScaler(self.device.type, enabled=scales)

    def start_epoch(self) -> None:
        """Call before the steps of an epoch."""
        if self._restarts:
            self.scaler = self._new_scaler()

    def autocast(self, *, cached: bool = True) -> AbstractContextManager[None]:
        """The precision of forward passes.

        Args:
            cached: convert each parameter once per block; False for the capture of a CUDA graph.
        """
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.enabled, cache_enabled=cached
        )


class FiniteCheck:
    """Whether losses and gradients of an epoch are finite; steps from the first that is not are skipped.

    The answer stays on the device: the fused optimizer reads it there and does not change the weights.
    On a CPU every step is asked at once, on a GPU only ``raise_if_not`` waits for the device.

    Args:
        device: of the training.
        epoch: named in the error.
        every_step: raise in the step itself; None = on a CPU.
        first: the step of the epoch with which it begins, from 0.
    """

    def __init__(
        self, device: torch.device, epoch: int, *, every_step: bool | None = None, first: int = 0
    ) -> None:
        self._epoch = epoch
        self._every_step = device.type == "cpu" if every_step is None else every_step
        #: scalar, 1.0 from the first step that is not finite
        self.failed = torch.zeros((), device=device)
        self._step = torch.full((), first, dtype=torch.int64, device=device)  # steps before it
        self._loss = torch.zeros((), device=device)

    def note(self, loss: Tensor, finite: Tensor) -> None:
        """Remember a step.

        Args:
            loss: scalar.
            finite: scalar bool, equal on all ranks.

        Raises:
            NonFiniteError: it is not finite, and every step is checked.
        """
        self._loss = torch.where(self.failed > 0, self._loss, loss.float())
        self.failed = torch.maximum(self.failed, (~finite).float())
        self._step += (self.failed == 0).long()
        if self._every_step:
            self.raise_if_not()

    def raise_if_not(self) -> None:
        """Wait for the device.

        Raises:
            NonFiniteError: a loss or its gradient was not finite.
        """
        if bool(self.failed):
            raise NonFiniteError(
                f"loss {float(self._loss):g} or its gradient is not finite at epoch {self._epoch}, step "
                f"{int(self._step) + 1}; lower learning_rate or scale"
            )


def apply_step(
    loss: Tensor,
    gradients: GradientSum,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    check: FiniteCheck,
    vote: StopVote | None = None,
) -> None:
    """Backward pass and one optimizer step.

    Args:
        loss: of this step; this rank's share if there are several ranks.
        gradients: sums those of the model over ranks.
        optimizer: of the model's parameters, fused.
        precision: scales the loss under float16.
        check: of the epoch.
        vote: on whether training stops, for which the gradients carry the votes of all ranks.

    Raises:
        NonFiniteError: the loss or its gradient is not finite; the weights have not changed.
    """
    optimizer.zero_grad(set_to_none=True)
    gradients.backward(precision.scaler.scale(loss))
    loss = gradients.finish(loss, vote).detach()
    finite = torch.isfinite(loss)  # equal on every rank, since it depends on the sums only
    if precision.scaler.is_enabled():  # it skips steps whose gradients overflow float16
        check.note(loss, finite)
        precision.scaler.step(optimizer)
        precision.scaler.update()
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    finite = finite & torch.isfinite(norm)
    check.note(loss, finite)
    # Read by torch's fused kernels, as torch.amp.GradScaler sets it.
    optimizer.found_inf = check.failed  # type: ignore[attr-defined]
    optimizer.step()
