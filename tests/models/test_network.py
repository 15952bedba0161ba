"""The network: cosines of unnormalised features on every backbone."""

from __future__ import annotations

import math

import pytest
import torch

from bbam_ray.errors import UsageError
from bbam_ray.models import BACKBONES, build_network, check_backbone
from bbam_ray.models.network import CosineHead, Network

SHAPES = {
    "small-cnn": (1, 24, 24),
    "mlp": (30,),
    "resnet18": (3, 64, 64),
}


def network(backbone: str, num_labels: int = 5) -> Network:
    torch.manual_seed(0)
    return build_network(backbone, SHAPES[backbone], num_labels, hidden_dim=12, feature_dim=6)


@pytest.mark.parametrize("backbone", SHAPES)
def test_features_and_cosines_have_their_shapes_and_range(backbone: str) -> None:
    features, cosine = network(backbone)(torch.randn(2, *SHAPES[backbone]))
    assert features.shape == (2, 6)
    assert cosine.shape == (2, 5)
    assert cosine.abs().max() <= 1 + 1e-6
    assert cosine.dtype == torch.float32


@pytest.mark.parametrize("backbone", SHAPES)
def test_a_gradient_reaches_every_weight(backbone: str) -> None:
    model = network(backbone).train()
    _, cosine = model(torch.randn(4, *SHAPES[backbone]))
    (cosine * torch.randn(4, 5)).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
    for part in (model.backbone, model.projector, model.head):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0


def test_the_cosine_is_that_of_feature_and_label_weight() -> None:
    model = network("mlp")
    with torch.no_grad():
        features, cosine = model(torch.randn(7, 30))
    f, w = features.double(), model.head.weight.detach().double()
    for i in range(7):
        for k in range(5):
            expected = float(f[i] @ w[k] / (f[i].norm() * w[k].norm()))
            assert float(cosine[i, k]) == pytest.approx(expected, abs=1e-6)


def test_features_are_not_normalised_and_their_length_does_not_change_the_cosine() -> None:
    model = network("mlp")
    lengths = model(torch.randn(20, 30))[0].norm(dim=1)
    assert not torch.allclose(lengths, torch.ones(20), atol=1e-3)
    assert lengths.std() > 0
    features = torch.randn(20, 6)
    torch.testing.assert_close(model.head(features), model.head(1000 * features))


def test_cosines_stay_in_range_where_features_are_extreme() -> None:
    head = CosineHead(6, 3)
    weight = head.weight.detach()
    extreme = torch.stack(
        [weight[0], -weight[0], 1e15 * weight[1], 1e-15 * weight[2], torch.zeros(6)]
    )
    cosine = head(extreme).detach()
    assert torch.isfinite(cosine).all()
    assert cosine.abs().max() <= 1 + 1e-6
    assert float(cosine[0, 0]) == pytest.approx(1, abs=1e-6)
    assert float(cosine[1, 0]) == pytest.approx(-1, abs=1e-6)
    assert torch.equal(cosine[4], torch.zeros(3))


def test_label_weights_start_uniform_in_plus_minus_the_root_of_1_over_d() -> None:
    torch.manual_seed(0)
    weight = CosineHead(64, 500).weight.detach()
    bound = math.sqrt(1 / 64)
    assert weight.abs().max() <= bound
    assert float(weight.abs().mean()) == pytest.approx(bound / 2, rel=0.02)
    assert abs(float(weight.mean())) < 0.01 * bound


def test_the_head_computes_in_float32_under_autocast() -> None:
    model = network("mlp").eval()
    inputs = torch.randn(3, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, cosine = model(inputs)
    assert features.dtype == torch.bfloat16
    assert cosine.dtype == torch.float32
    torch.testing.assert_close(cosine, model.head(features.float()))


def test_an_mlp_takes_a_single_feature_vector_even_in_training() -> None:
    model = network("mlp").train()
    _, cosine = model(torch.randn(1, 30))
    assert torch.isfinite(cosine).all()
    check_backbone("mlp", "none", (30,))


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'resnet-18'.*did you mean 'resnet18'"):
        check_backbone("resnet-18", "none", (3, 64, 64))


@pytest.mark.parametrize(
    ("backbone", "shape", "hint"),
    [("mlp", (1, 24, 24), "small-cnn"), ("small-cnn", (30,), "mlp"), ("resnet50", (30,), "mlp")],
)
def test_a_backbone_that_does_not_fit_the_samples_is_refused(
    backbone: str, shape: tuple[int, ...], hint: str
) -> None:
    with pytest.raises(UsageError, match=f"backbone '{backbone}' does not take.*{hint}"):
        check_backbone(backbone, "none", shape)


@pytest.mark.parametrize("backbone", [b for b in BACKBONES if b not in ("mlp", "resnet101")])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_passes_the_check_can_be_run(backbone: str, channels: int) -> None:
    """Digit scenes have one channel: a backbone that cannot take them must be refused at the start."""
    shape = (channels, 32, 32)
    try:
        check_backbone(backbone, "none", shape)
    except UsageError:
        return
    model = build_network(backbone, shape, 4, hidden_dim=8, feature_dim=4).eval()
    with torch.no_grad():
        assert model(torch.rand(1, *shape))[1].shape == (1, 4)


@pytest.mark.parametrize(("projector", "width"), [("none", 30), ("linear", 6), ("mlp", 6)])
def test_the_identity_backbone_leaves_layers_to_the_projector(projector: str, width: int) -> None:
    model = build_network("identity", (30,), 5, hidden_dim=12, feature_dim=6, projector=projector)
    inputs = torch.randn(4, 30)
    features, cosine = model(inputs)
    assert features.shape == (4, width) and model.feature_dim == width and cosine.shape == (4, 5)
    if projector == "none":
        assert torch.equal(features, inputs)
        assert [name for name, _ in model.named_parameters()] == ["head.weight"]
    middle, _ = model((inputs[:1] + inputs[1:2]) / 2)
    is_affine = torch.allclose(middle, (features[:1] + features[1:2]) / 2, atol=1e-6)
    assert is_affine == (projector != "mlp")
    (cosine * torch.randn(4, 5)).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


def test_an_unknown_projector_is_refused() -> None:
    with pytest.raises(ValueError, match="deep"):
        build_network("identity", (30,), 5, hidden_dim=12, feature_dim=6, projector="deep")


@pytest.mark.parametrize(("shape", "vocabulary"), [((3, 64, 64), 0), ((20,), 99)])
def test_only_feature_vectors_can_do_without_a_backbone(
    shape: tuple[int, ...], vocabulary: int
) -> None:
    with pytest.raises(UsageError, match="'identity' does not take"):
        check_backbone("identity", "none", shape, vocabulary)
    check_backbone("identity", "none", (30,))
