"""The averaged model follows the trained one by the stated recursion and survives saving."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bbam_ray.core.ema import ExponentialAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def disturb(module: nn.Module, seed: int) -> None:
    """The effect of a training step: other weights, other buffers, one more batch counted."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=g))
            else:
                tensor.add_(1)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9997])
def test_weights_and_buffers_follow_the_recursion_with_its_warm_up(
    decay: float, warmup: bool
) -> None:
    module = network()
    average = ExponentialAverage(module, decay, warmup=warmup)
    expected = {name: t.double() for name, t in module.state_dict().items()}
    for step in range(5):
        disturb(module, step)
        average.update()
        d = min(decay, (1 + step) / (10 + step)) if warmup else decay
        for name, tensor in module.state_dict().items():
            old, now = expected[name], tensor.double()
            expected[name] = d * old + (1 - d) * now if tensor.is_floating_point() else now
        for name, tensor in average.module.state_dict().items():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
            assert tensor.dtype == module.state_dict()[name].dtype


def test_the_average_is_a_frozen_copy_in_evaluation_mode() -> None:
    module = network()
    average = ExponentialAverage(module, 0.9)
    assert not average.module.training and module.training
    assert not any(p.requires_grad for p in average.module.parameters())
    assert all(p.requires_grad for p in module.parameters())
    before = copy.deepcopy(average.module.state_dict())
    disturb(module, 0)
    for name, tensor in average.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_an_update_does_not_touch_the_trained_module() -> None:
    module = network()
    average = ExponentialAverage(module, 0.9)
    disturb(module, 1)
    before = copy.deepcopy(module.state_dict())
    average.update()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_two_updates_save_load_and_two_more_equal_four() -> None:
    straight, broken = network(), network()
    whole = ExponentialAverage(straight, 0.5)
    first = ExponentialAverage(broken, 0.5)
    for step in range(2):
        for module, average in ((straight, whole), (broken, first)):
            disturb(module, step)
            average.update()
    resumed_module = network()
    second = ExponentialAverage(resumed_module, 0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed_module.load_state_dict(broken.state_dict())
    for step in range(2, 4):
        for module, average in ((straight, whole), (resumed_module, second)):
            disturb(module, step)
            average.update()
    assert second.updates == whole.updates == 4
    for ours, theirs in zip(
        second.module.state_dict().values(), whole.module.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_restart_begins_from_the_current_weights_and_buffers_and_counts_from_zero() -> None:
    module = network()
    average = ExponentialAverage(module, 0.9)
    for step in range(3):
        disturb(module, step)
        average.update()
    average.restart()
    assert average.updates == 0
    for name, tensor in average.module.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name])
    fresh = ExponentialAverage(module, 0.9)
    disturb(module, 9)
    average.update()
    fresh.update()
    for ours, theirs in zip(
        average.module.state_dict().values(), fresh.module.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)
