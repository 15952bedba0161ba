"""``drml``: which parameters each part of a step trains, against parts computed separately."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray.methods.drml import Drml, DrmlOptions, reversed_gradient
from bbam_ray.models.network import Network

K, D = 3, 4
LABELS = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.int8)


def network() -> Network:
    """Its backbone is the identity, so that inputs are 5 wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Network(nn.Identity(), 5, 6, D, K)
        model.auxiliary = Drml.auxiliary(DrmlOptions(relation_dim=7), D, K)
    return model


def inputs(seed: int, count: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=rng)


@pytest.fixture
def make(task: Callable) -> Callable[..., Drml]:
    def drml(**options: Any) -> Drml:
        method = Drml(DrmlOptions(**options), task(LABELS))
        method.start_epoch(8)
        return method

    return drml


def predictions(model: Network, features: Tensor, scale: float) -> list[Tensor]:
    """Logits of both classifiers, from the weights."""
    weights = model.head.weight, model.auxiliary.second.weight
    return [scale * F.normalize(features) @ F.normalize(w).T for w in weights]


def related(model: Network, p: Tensor, q: Tensor) -> Tensor:
    products = torch.stack([torch.outer(a, b).flatten() for a, b in zip(p, q, strict=True)])
    return model.auxiliary.relation(products)


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")


def parts(model: Network, method: Drml, known: Tensor, weak: Tensor, strong: Tensor) -> Any:
    """The losses of a step, one by one, and which samples are used."""
    s = method.options.scale
    features = [model(x)[0] for x in (known, weak, strong)]
    first, second = predictions(model, features[0], s)
    third = related(model, first.sigmoid(), second.sigmoid())
    on_labeled = sum(entropy(z, LABELS) for z in (first, second, third)) / len(known)
    p, q = (z.sigmoid() for z in predictions(model, features[1], s))
    joins = (p - q).abs().mean(1) < method.options.agreement
    soft = related(model, p, q).sigmoid().detach()
    on_joined = sum(entropy(z[joins], soft[joins]) for z in predictions(model, features[2], s))
    contest = (p - q).abs().sum() / len(weak)
    return on_labeled, on_joined / len(weak), contest, joins, soft


def gradient_of(loss: Tensor, model: Network) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 2, "agreement": 0.15},
        {"scale": 5, "agreement": 0.3, "discrepancy_weight": 0.4, "unlabeled_weight": 2.0},
    ],
    ids=str,
)
def test_a_step_trains_classifiers_to_differ_and_features_to_agree(
    options: dict[str, Any], make: Callable[..., Drml], samples: Callable
) -> None:
    drml, model = make(**options), network()
    known, weak, strong = inputs(1, 4), inputs(2, 6), inputs(3, 6)
    rows = [7, 1, 0, 4, 5, 2]
    loss = drml.semi_supervised_loss(
        model, samples(strong=known), LABELS, samples(weak=weak, strong=strong, rows=rows)
    )
    on_labeled, on_joined, contest, joins, soft = parts(model, drml, known, weak, strong)
    assert joins.any() and not joins.all()
    o = drml.options
    torch.testing.assert_close(loss.labeled, on_labeled, rtol=1e-5, atol=0)
    expected = o.unlabeled_weight * on_joined - o.discrepancy_weight * contest
    torch.testing.assert_close(loss.unlabeled, expected, rtol=1e-4, atol=1e-6)
    found = gradient_of(loss.total, model)
    taught = gradient_of(on_labeled + o.unlabeled_weight * on_joined, model)
    apart = gradient_of(o.discrepancy_weight * contest, model)
    assert any(apart["projector.0.weight"].flatten())
    for name, gradient in found.items():
        # Descent on the loss raises the discrepancy over classifiers, and lowers it over the rest.
        sign = -1 if name in ("head.weight", "auxiliary.second.weight") else 1
        torch.testing.assert_close(
            gradient, taught[name] + sign * apart[name], rtol=1e-4, atol=1e-5
        )
    labels, confident = drml.pseudo_labels()
    assert torch.equal(labels[rows], (soft >= 0.5).to(torch.int8))
    assert torch.equal(confident[rows], joins.unsqueeze(1).expand(6, K))


def test_the_warm_up_is_the_labelled_part(make: Callable[..., Drml], samples: Callable) -> None:
    drml, model, known = make(), network(), inputs(1, 4)
    loss = drml.labeled_loss(model, samples(strong=known), LABELS)
    expected = parts(model, drml, known, inputs(2, 1), inputs(3, 1))[0]
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=0)
    assert all(g.any() for g in gradient_of(loss.total, model).values())


@pytest.mark.parametrize(("agreement", "joining"), [(0.0, False), (1.0, True)])
def test_agreement_decides_whether_none_or_all_samples_are_used(
    agreement: float, joining: bool, make: Callable[..., Drml], samples: Callable
) -> None:
    drml = make(agreement=agreement, discrepancy_weight=0.0)
    unlabeled = samples(weak=inputs(2, 8), strong=inputs(3, 8))
    loss = drml.semi_supervised_loss(network(), samples(strong=inputs(1, 4)), LABELS, unlabeled)
    assert (float(loss.unlabeled.detach()) > 0) is joining
    assert bool(drml.pseudo_labels()[1].all()) is joining


def test_empty_shares_of_a_step_give_finite_gradients(
    make: Callable[..., Drml], samples: Callable
) -> None:
    nothing, model = inputs(1, 0), network()
    for sizes in ((4, 0), (0, 8)):
        known, others = (inputs(1, n) if n else nothing for n in sizes)
        loss = make().semi_supervised_loss(
            model,
            samples(weak=known, strong=known, total=4),
            LABELS[: len(known)],
            samples(weak=others, strong=others, total=8),
        )
        assert all(torch.isfinite(g).all() for g in gradient_of(loss.total, model).values())
        assert (loss.labeled == 0) == (sizes[0] == 0) and (loss.unlabeled == 0) == (sizes[1] == 0)


def test_reversed_features_are_the_features() -> None:
    features = inputs(1, 3).requires_grad_()
    reversed_features = reversed_gradient(features)
    torch.testing.assert_close(reversed_features, features)
    slope = inputs(2, 3)
    (reversed_features * slope).sum().backward()
    assert torch.equal(features.grad, -slope)
