"""CUDA graphs, compiled networks and TensorFloat32 compute what the plain path computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bbam_ray.engine.optim import Precision
from bbam_ray.engine.trainer import Trainer
from bbam_ray.models import Network, build_network
from bbam_ray.models.fast_paths import CapturedPath, CompiledPath, tensor_float32

pytestmark = pytest.mark.gpu

SHAPE = (16, 3, 32, 32)


def network_on(device: torch.device, backbone: str) -> Network:
    torch.manual_seed(0)
    network = build_network(backbone, SHAPE[1:], 5, hidden_dim=32, feature_dim=16)
    return network.to(device).to(memory_format=torch.channels_last).train()


def trained(network: Network, precision: Precision, steps: int = 4) -> dict[str, Tensor]:
    """Weights and buffers after some steps, every third of them with another batch size."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for number in range(steps):
        inputs = torch.randn(16 - 4 * (number % 3 == 2), *SHAPE[1:], generator=generator)
        inputs = inputs.to(precision.device).contiguous(memory_format=torch.channels_last)
        if isinstance(network.fast_path, CapturedPath):
            network.fast_path.start_step()
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            features, cosine = network(inputs)
        (features.float().square().mean() + cosine.sum()).backward()
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("backbone", ["small-cnn", "resnet18"])
@pytest.mark.parametrize("path", ["graph", "compiled"])
def test_a_fast_path_trains_the_weights_of_the_plain_one(
    path: str, backbone: str, amp: bool, cuda: torch.device
) -> None:
    precision = Precision(cuda, amp)
    plain, fast = (network_on(cuda, backbone) for _ in range(2))
    before = copy.deepcopy(fast.state_dict())
    random = torch.cuda.get_rng_state(cuda)
    fast.fast_path = (
        CapturedPath(fast, SHAPE, precision.autocast(cached=False))
        if path == "graph"
        else CompiledPath(fast, SHAPE)
    )
    for name, tensor in fast.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # running statistics too
    assert torch.equal(torch.cuda.get_rng_state(cuda), random)
    expected, state = trained(plain, precision), trained(fast, precision)
    tolerance = 5e-2 if amp else 2e-3
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    assert not torch.equal(state["head.weight"], before["head.weight"])


@pytest.mark.parametrize("method", ["bbam", "flatmatch", "drml", "supervised"])
def test_every_method_trains_on_graphs_as_on_the_plain_path(
    method: str, cuda: torch.device, on_device: Callable[..., Trainer], run_to_end: Callable
) -> None:
    settings: dict[str, Any] = {"method": method, "amp": False, "warmup_passes": 20}
    settings |= {"labeled_batch": 8, "unlabeled_batch": 8}
    plain = on_device(compile=False, **settings)
    run_to_end(plain)
    trainer = on_device(compile="auto", **settings)
    records = run_to_end(trainer)
    assert max(record.scalars["compiled"] for record in records) > 0
    weights = [
        torch.cat([p.detach().flatten() for p in each.model.parameters()])
        for each in (plain, trainer)
    ]
    assert float((weights[0] - weights[1]).norm() / weights[0].norm()) < 0.02


def test_tensor_float32_is_for_networks_only(cuda: torch.device) -> None:
    before = torch.get_float32_matmul_precision()
    with tensor_float32(cuda):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before == "highest"
    head = network_on(cuda, "small-cnn").head
    features = torch.randn(512, head.weight.shape[1], device=cuda)
    exact = torch.nn.functional.linear(
        torch.nn.functional.normalize(features.double()),
        torch.nn.functional.normalize(head.weight.double()),
    )
    assert float((head(features).double() - exact).abs().max()) < 1e-6
