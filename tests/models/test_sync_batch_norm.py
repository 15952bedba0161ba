"""Batch norm over the ranks of real gloo groups is that of one process on the union, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbam_ray.models.sync_batch_norm import SynchronizedBatchNorm, synchronized

SHARES = {2: ([5, 3], [0, 8]), 3: ([5, 1, 2], [4, 0, 4])}
NAMES = ("images", "vectors", "a rank has none", "large mean", "cumulative", "not affine")
Ranks = tuple[dict[str, Any], list[Any]]


def make_cases(world_size: int) -> dict[str, Any]:
    """Two batches of 8 samples each; ``large mean`` has a mean of 1000 spreads, different at each rank."""
    cases = {}
    for seed, name in enumerate(NAMES):
        g = torch.Generator().manual_seed(seed)
        images = name in ("images", "large mean", "a rank has none")
        shape = (8, 3, 4, 2) if images else (8, 3)
        inputs = [torch.randn(shape, generator=g) * (1 + step) + step for step in range(2)]
        if name == "large mean":
            inputs = [x + 1000 for x in inputs]
        cases[name] = {
            "inputs": inputs,
            "slopes": [torch.randn(shape, generator=g) for _ in range(2)],
            "shares": SHARES[world_size][name in ("a rank has none", "cumulative")],
            "momentum": {"cumulative": None, "vectors": 0.3}.get(name, 0.1),
            "affine": name != "not affine",
            "state": {
                "weight": torch.tensor([0.5, 1.5, -2.0]),
                "bias": torch.tensor([0.1, 0.0, -1.0]),
                "running_mean": torch.tensor([1.0, 2.0, 3.0]),
                "running_var": torch.tensor([1.0, 0.5, 2.0]),
                "num_batches_tracked": torch.tensor(0),
            },
        }
    return cases


def on_the_union(case: dict[str, Any]) -> dict[str, Any]:
    """The same steps by the layer of PyTorch, on all samples, in float64."""
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}[case["inputs"][0].ndim]
    layer = kind(3, momentum=case["momentum"], affine=case["affine"])
    if case["affine"]:
        layer.load_state_dict(case["state"])
    layer.double()
    outputs, gradients = [], []
    for inputs, slope in zip(case["inputs"], case["slopes"], strict=True):
        given = inputs.double().requires_grad_()
        output = layer(given)
        (output * slope + output**3 / 3).sum().backward()
        outputs.append(output.detach())
        gradients.append(given.grad)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    return {
        "outputs": outputs,
        "gradients": gradients,
        "weight": layer.weight.grad if case["affine"] else None,
        "bias": layer.bias.grad if case["affine"] else None,
        "state": state,
        "evaluated": layer.eval()(case["inputs"][0].double()).detach(),
    }


@pytest.fixture(scope="module", params=[2, 3], ids="{} ranks".format)
def ranks(
    request: pytest.FixtureRequest,
    gloo_group: Callable[[Path, int, Path], list[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Ranks:
    """The cases, and the results of each rank for them and for a model."""
    folder = tmp_path_factory.mktemp("gloo")
    cases = make_cases(request.param)
    torch.save(cases, folder / "cases.pt")
    script = Path(__file__).with_name("batch_norm_worker.py")
    return cases, gloo_group(script, request.param, folder)


def near(found: Tensor, expected: Tensor, name: str) -> None:
    """Equal up to float32 rounding, which a mean of 1000 spreads makes a thousand times larger."""
    tolerance = 3e-4 if name == "large mean" else 1e-6
    scale = float(expected.abs().max().clamp_min(1))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=tolerance * scale)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_input_gradients_are_those_of_the_union(name: str, ranks: Ranks) -> None:
    cases, answers = ranks
    expected = on_the_union(cases[name])
    for figure in ("outputs", "gradients"):
        for step in range(2):
            parts = [found[name][figure][step] for found, _ in answers]
            assert [len(part) for part in parts] == cases[name]["shares"]
            near(torch.cat(parts), expected[figure][step], name)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "not affine"])
def test_weight_and_bias_gradients_add_up_to_those_of_the_union(name: str, ranks: Ranks) -> None:
    cases, answers = ranks
    expected = on_the_union(cases[name])
    for figure in ("weight", "bias"):
        near(sum(found[name][figure] for found, _ in answers), expected[figure], name)


@pytest.mark.parametrize("name", NAMES)
def test_running_statistics_are_those_of_the_union_on_every_rank(name: str, ranks: Ranks) -> None:
    cases, answers = ranks
    expected = on_the_union(cases[name])["state"]
    for found, _ in answers:
        state = found[name]["state"]
        assert state.keys() == expected.keys()
        assert int(state["num_batches_tracked"]) == 2
        for key in ("running_mean", "running_var"):
            torch.testing.assert_close(state[key].double(), expected[key], rtol=2e-6, atol=1e-6)
            assert torch.equal(state[key], answers[0][0][name]["state"][key])


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_uses_the_running_statistics(name: str, ranks: Ranks) -> None:
    cases, answers = ranks
    parts = [found[name]["evaluated"] for found, _ in answers]
    near(torch.cat(parts), on_the_union(cases[name])["evaluated"], name)


def test_a_share_normalized_alone_would_not_pass(ranks: Ranks) -> None:
    """The cases distinguish synchronized from ordinary batch norm."""
    case = ranks[0]["images"]
    alone = nn.BatchNorm2d(3)
    alone.load_state_dict(case["state"])
    output = alone(case["inputs"][0][: case["shares"][0]])
    together = on_the_union(case)["outputs"][0][: case["shares"][0]]
    assert float((output.detach() - together).abs().max()) > 0.1


def test_a_converted_model_keeps_names_tensors_and_settings(ranks: Ranks) -> None:
    for _, found in ranks[1]:
        assert found["keys kept"] and found["parameters shared"] and found["buffers shared"]
        assert (found["replaced"], found["left"]) == (2, 0)
        assert found["settings"] == [(4, 1e-3, 0.3, True, True), (3, 1e-5, 0.1, False, False)]


def test_one_process_has_nothing_to_convert() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert synchronized(model, torch.device("cpu")) is model
    assert type(model[1]) is nn.BatchNorm1d


def test_one_process_normalizes_like_pytorch() -> None:
    plain = nn.BatchNorm1d(3)
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    layer = SynchronizedBatchNorm.like(nn.BatchNorm1d(3))
    assert torch.equal(layer(inputs), plain(inputs))
    assert torch.equal(layer.running_var, plain.running_var)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        layer(inputs[0])
