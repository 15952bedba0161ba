"""Faster forms of a network's backbone and projector: compiled, or captured as a CUDA graph.

Both compute features from inputs of one shape and are used as ``network.fast_path``; other shapes take the
plain path. Parameters, buffers and their names stay those of the network.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from bbam_ray.models.sync_batch_norm import use_running_statistics

#: compiled forms per process, of networks of several structures and modes; torch's default is 8
_COMPILED_FORMS = 256


@contextmanager
def tensor_float32(device: torch.device) -> Iterator[None]:
    """Allow TensorFloat32 in the float32 matrix products within the block; no effect on a CPU.

    For networks only: the mathematics in ``core`` needs all bits of float32.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _compiled(dynamic: bool) -> Any:
    """The compiled ``encode`` of all networks; torch compiles it once for each structure and shape.

    Args:
        dynamic: for inputs of any shape, compiled once, a bit slower.
    """
    import torch._dynamo.config as config  # takes a second to import

    config.recompile_limit = max(config.recompile_limit, _COMPILED_FORMS)
    return torch.compile(lambda network, inputs: network.encode(inputs), dynamic=dynamic)


def _first_trained(network: nn.Module) -> Tensor:
    """The first parameter that is trained, or the first one of a network that only evaluates."""
    parameters = list(network.parameters())
    return next((p for p in parameters if p.requires_grad), parameters[0])


class FastPath(ABC):
    """Features of inputs of certain shapes.

    A copy of a network does not inherit it, since the copy has parameters of its own.
    """

    @abstractmethod
    def accepts(self, network: nn.Module, inputs: Tensor) -> bool:
        """Whether ``features`` is used for these inputs."""

    @abstractmethod
    def features(self, network: Any, inputs: Tensor) -> Tensor:
        """Features (B, D), not normalised, of inputs that it accepts."""

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()


class ShapeRecorder(FastPath):
    """Takes the plain path, and counts the shapes of the inputs in training mode."""

    def __init__(self) -> None:
        self._shapes: Counter[torch.Size] = Counter()

    def accepts(self, network: nn.Module, inputs: Tensor) -> bool:
        if network.training and torch.is_grad_enabled():
            self._shapes[inputs.shape] += 1
        return False

    def features(self, network: Any, inputs: Tensor) -> Tensor:
        features: Tensor = network.encode(inputs)
        return features

    @property
    def usual(self) -> torch.Size | None:
        """The shape of most inputs; None if they have many shapes."""
        if not self._shapes:
            return None
        shape, count = self._shapes.most_common(1)[0]
        return shape if 2 * count > self._shapes.total() else None


class CompiledPath(FastPath):
    """Features by ``torch.compile``, which happens at the first inputs of each shape.

    If the compiler fails, the plain path is taken from then on.

    Args:
        network: whose parameters are compiled; with other parameters, as ``functional_call`` does,
            the plain path is taken.
        shape: of the inputs in training mode; None = any shape with at least two samples.
        evaluation: shape of the inputs in evaluation mode, without gradients; None = not compiled there.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...] | None,
        evaluation: tuple[int, ...] | None = None,
    ) -> None:
        self._parameter = _first_trained(network)
        self._shape, self._evaluation = shape, evaluation
        #: modes whose first inputs have been seen; True = training
        self.ready: set[bool] = set()
        #: of compiling; on a GPU the first pass is part of it
        self.seconds = 0.0
        #: why the compiler failed
        self.failure: Exception | None = None

    def accepts(self, network: nn.Module, inputs: Tensor) -> bool:
        if self.failure is not None or _first_trained(network) is not self._parameter:
            return False
        with_gradient = torch.is_grad_enabled()
        if network.training:
            fits = len(inputs) > 1 if self._shape is None else inputs.shape == self._shape
            return with_gradient and fits
        return not with_gradient and inputs.shape == self._evaluation

    def features(self, network: Any, inputs: Tensor) -> Tensor:
        compiled = _compiled(self._shape is None)
        if network.training in self.ready:
            features: Tensor = compiled(network, inputs)
            return features
        started = time.perf_counter()
        try:
            features = compiled(network, inputs)
        except Exception as error:  # of any kind: the compiler runs other programs
            self.failure = error
            features = network.encode(inputs)
        self.ready.add(network.training)
        self.seconds += time.perf_counter() - started
        return features


class _Encoding(nn.Module):
    """Backbone and projector of a network, as a module of their own."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone, self.projector = network.backbone, network.projector
        if network.takes_features:
            self.backbone = nn.Identity()
        self._is_frozen, self._keeps_statistics = network.is_frozen, network.keeps_statistics

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self._is_frozen:
            self.backbone.eval()
        elif self._keeps_statistics:
            use_running_statistics(self.backbone)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.projector(self.backbone(inputs))
        return features


class CapturedPath(FastPath):
    """Features by CUDA graphs of the forward and the backward pass in training mode.

    It replays the kernels of the plain path without the time that launching them takes. The graphs have
    one set of buffers, so only the first forward pass of a step takes this path: call ``start_step``.

    Args:
        network: on a GPU; its weights, buffers and random generator stay as they are.
        shape: of the inputs; images in channels-last layout.
        autocast: of the forward pass, without its cache.
    """

    def __init__(
        self, network: Any, shape: tuple[int, ...], autocast: AbstractContextManager[None]
    ) -> None:
        self._shape, self._parameter = torch.Size(shape), _first_trained(network)
        self._is_first = True
        encoding = _Encoding(network).train()
        inputs = torch.zeros(shape, device=self._parameter.device)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        buffers = copy.deepcopy(dict(encoding.named_buffers()))
        random = torch.cuda.get_rng_state(inputs.device)
        with tensor_float32(inputs.device), autocast:
            graphed: Any = torch.cuda.make_graphed_callables(
                encoding, (inputs,), allow_unused_input=True
            )
        self._graphed = graphed
        # Warm-up passes before the capture have changed running statistics.
        with torch.no_grad():
            for name, buffer in encoding.named_buffers():
                buffer.copy_(buffers[name])
        torch.cuda.set_rng_state(random, inputs.device)

    def start_step(self) -> None:
        """The buffers of the graphs are free again."""
        self._is_first = True

    def accepts(self, network: nn.Module, inputs: Tensor) -> bool:
        return (
            self._is_first
            and network.training
            and torch.is_grad_enabled()
            and inputs.shape == self._shape
            and _first_trained(network) is self._parameter
        )

    def features(self, network: Any, inputs: Tensor) -> Tensor:
        self._is_first = False
        features: Tensor = self._graphed(inputs)
        return features
