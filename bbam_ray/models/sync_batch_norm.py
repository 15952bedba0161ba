"""Batch norm over the samples of all ranks, on any device.

``nn.SyncBatchNorm`` works on GPUs only, where it is used; the module here replaces it on CPUs. Parameter
and buffer names are those of ``nn.BatchNorm2d``, so checkpoints do not differ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bbam_ray import distributed


def use_running_statistics(module: nn.Module) -> None:
    """Let every batch norm in a module normalise with its running statistics, and keep them.

    The scale and shift of each channel are still trained. ``module.train()`` undoes it.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.training = False  # of this layer only: those of timm contain others


def synchronized(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of a model by one over all ranks; no effect without a process group.

    Args:
        model: changed in place, except for the module itself.
        device: of the model.

    Returns:
        The model, or its replacement if it is a batch norm itself.
    """
    if not distributed.is_active():
        return model
    if device.type == "cuda":
        converted: nn.Module = _converter(model)(model)
        return converted
    return _replaced(model)


def _converter(model: nn.Module) -> Any:
    """The function that converts a model for GPUs: that of timm for layers of timm."""
    if any(_activation(module) is not None for module in model.modules()):
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm
    return nn.SyncBatchNorm.convert_sync_batchnorm


def _activation(module: nn.Module) -> nn.Module | None:
    """What follows the normalisation in a batch norm of timm (``BatchNormAct2d``); None for others."""
    if not isinstance(module, nn.BatchNorm2d) or type(module) is nn.BatchNorm2d:
        return None
    parts = [getattr(module, name, None) for name in ("drop", "act")]
    layers = [layer for layer in parts if isinstance(layer, nn.Module)]
    return nn.Sequential(*layers) if layers else None


def _replaced(module: nn.Module) -> nn.Module:
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        return SynchronizedBatchNorm.like(module)
    for name, child in module.named_children():
        setattr(module, name, _replaced(child))
    return module


class SynchronizedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose mean and variance are those of the union of all ranks' samples.

    An activation that is part of the replaced layer follows as ``then``.

    Two messages per step: (2 C + 1) float64 numbers forward and 2 C backward, for C channels. A rank may
    have no samples.
    """

    then: nn.Module

    @classmethod
    def like(cls, other: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> SynchronizedBatchNorm:
        """A layer with the settings of another one, which shares its parameters and buffers."""
        new = cls(
            other.num_features,
            other.eps,
            other.momentum,
            other.affine,
            other.track_running_stats,
        )
        new._parameters, new._buffers = other._parameters, other._buffers
        new.training = other.training
        new.then = _activation(other) or nn.Identity()
        return new

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (B, C, ...) inputs, got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, ...) to the same shape; B is this rank's share of the batch."""
        result: Tensor = self.then(self._normalized(input))
        return result

    def _normalized(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training or not distributed.is_active():
            return super().forward(input)
        output, mean, variance, count = _Normalize.apply(input, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._update_running(mean, variance * (count / (count - 1).clamp_min(1)))
        result: Tensor = output
        return result

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Normalize(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, with moments over all ranks and positions.

    Gradient: dx = weight / sqrt(variance + eps) (dy - mean(dy) - x^ mean(dy x^)), with means over all
    ranks and x^ the normalised input. The gradients of weight and bias are this rank's share, as for every
    other parameter.

    Source: [Batch Normalization](https://arxiv.org/abs/1502.03167).
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        positions = [d for d in range(inputs.ndim) if d != 1]
        number = inputs.numel() // inputs.shape[1]
        channels = inputs.shape[1]
        count = torch.tensor([float(number)], dtype=torch.float64, device=inputs.device)
        if number:
            variance_here, mean_here = torch.var_mean(inputs.float(), positions, correction=0)
            mean64, variance64 = mean_here.double(), variance_here.double()
        else:
            mean64 = variance64 = count.new_zeros(channels)
        # Sums over ranks of squared means, not of squared values, lose nothing to cancellation.
        count, total, squares = distributed.all_reduce_sum(
            count, mean64 * number, (variance64 + mean64.square()) * number
        )
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        scale = (variance + eps).rsqrt()
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        normal = (inputs.float() - mean.float().view(shape)) * scale.float().view(shape)
        ctx.save_for_backward(normal, scale, count, weight)
        ctx.positions, ctx.shape, ctx.dtype = positions, shape, inputs.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        output = normal
        if weight is not None and bias is not None:
            output = torch.addcmul(bias.view(shape), normal, weight.view(shape))
        return output.to(inputs.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        normal, scale, count, weight = ctx.saved_tensors
        gradient = gradients[0].float()
        on_bias = gradient.sum(ctx.positions)
        on_weight = (gradient * normal).sum(ctx.positions)
        sums = distributed.all_reduce_sum(on_bias.double(), on_weight.double())
        mean_gradient, mean_product = (((s / count).float()).view(ctx.shape) for s in sums)
        slope = scale.float() if weight is None else scale.float() * weight
        through = (gradient - mean_gradient - normal * mean_product) * slope.view(ctx.shape)
        if weight is None:
            return through.to(ctx.dtype), None, None, None
        return through.to(ctx.dtype), on_weight, on_bias, None
