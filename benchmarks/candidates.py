"""Optimizations of an epoch that were tried: each is timed without and with it."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch._inductor.config
from torch.fx.experimental.optimization import fuse
from torch.profiler import ProfilerActivity, profile

from bbam_ray.engine.process import keep_freed_memory
from bbam_ray.models import Network, build_network
from benchmarks.epoch import make_trainer, voc_like
from benchmarks.measure import Measured, SeparateProcess, alternate

SIDE, MODEL = 96, "ResNet-18 at 96 px"


def _network() -> Network:
    model = build_network("resnet18", (3, SIDE, SIDE), 20, hidden_dim=512, feature_dim=256)
    return model.to(memory_format=torch.channels_last)


def _images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)


def _forward(model: Any, inputs: torch.Tensor, half: bool) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        model(inputs)


def _forwards(keep_memory: bool, half: bool) -> Callable[[], Any]:
    """For a separate process: five forward passes of 128 images."""
    if keep_memory:
        keep_freed_memory()
    model, inputs = _network().eval(), _images(128)

    def work() -> None:
        for _ in range(5):
            _forward(model, inputs, half)

    return work


def _train(model: Any, inputs: torch.Tensor, half: bool) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        _, cosine = model(inputs)
    cosine.float().square().sum().backward()


def optimizers(rounds: int) -> Measured:
    """AdamW with the default of a CPU, and fused."""
    model = _network()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    default = torch.optim.AdamW(model.parameters())
    fused = torch.optim.AdamW(model.parameters(), fused=True)
    return Measured(
        "optimization", f"fused AdamW, {MODEL}", **alternate(default.step, fused.step, rounds)
    )


def memory_reuse(half: bool, rounds: int) -> Measured:
    """Freed memory returns to the kernel, or stays with the process."""
    without, reused = (SeparateProcess(_forwards, keep, half) for keep in (False, True))
    timed = alternate(without, reused, rounds)
    without.end()
    reused.end()
    return Measured(
        "optimization", f"memory reuse, 5 x 128 images forward, {_precision(half)}", **timed
    )


def folded(half: bool, rounds: int) -> Measured:
    """Batch norm folded into the convolutions of a network in evaluation mode."""
    model, inputs = _network().eval(), _images(128)
    other = copy.deepcopy(model)
    other.backbone = fuse(other.backbone)
    other.to(memory_format=torch.channels_last)
    timed = alternate(
        partial(_forward, model, inputs, half), partial(_forward, other, inputs, half), rounds
    )
    return Measured(
        "optimization", f"folded batch norm, 128 images forward, {_precision(half)}", **timed
    )


def compiled(half: bool, rounds: int) -> Measured:
    """torch.compile, and its compile time with an empty cache; needs a C++ compiler."""
    model, inputs = _network().train(), _images(32)
    with (
        tempfile.TemporaryDirectory() as empty,
        torch._inductor.config.patch(force_disable_caches=True),
    ):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        other: Any = torch.compile(copy.deepcopy(model))
        started = time.perf_counter()
        _train(other, inputs, half)
        seconds = time.perf_counter() - started
        timed = alternate(
            partial(_train, model, inputs, half), partial(_train, other, inputs, half), rounds
        )
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
    case = f"torch.compile, 32 images forward and backward, {_precision(half)}"
    return Measured("optimization", case, **timed, details={"compile_s": seconds})


def share_of_convolutions(images: int) -> Measured:
    """The share of an epoch's CPU time that convolutions take, forward and backward."""
    with voc_like(images) as root:
        trainer = make_trainer(root, image_size=SIDE, amp_cpu=True)
        trainer.run_epoch()
        started = time.perf_counter()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            trainer.run_epoch()
        seconds = time.perf_counter() - started
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    convolutions = sum(time for name, time in spent.items() if "convolution" in name)
    return Measured(
        "profile",
        f"an epoch of {images} images, {MODEL}, bfloat16",
        None,
        seconds,
        None,
        1,
        {"share_of_convolutions": convolutions / sum(spent.values())},
    )


def _precision(half: bool) -> str:
    return "bfloat16" if half else "float32"


def run(full: bool) -> list[Measured]:
    """Nine rounds if ``full``, else five."""
    rounds = 9 if full else 5
    keep_freed_memory()
    measured = [optimizers(rounds)]
    for half in (False, True):
        measured += [memory_reuse(half, rounds), folded(half, rounds), compiled(half, rounds)]
    return [*measured, share_of_convolutions(240)]
