"""``flatmatch``: the gradient of a step against one computed with two models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray.methods.flatmatch import Flatmatch, FlatmatchOptions, self_adaptive_thresholds
from bbam_ray.methods.method import Minibatch
from bbam_ray.models.network import Network

K = 3
LABELS = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.int8)


def network() -> Network:
    """With batch norm, in training mode; float64, so that gradients can be compared closely."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.GELU())
        return Network(backbone, 6, 8, 4, K).double().train()


def inputs(seed: int, count: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=rng, dtype=torch.float64)


class Step:
    """A method at the start of an epoch, and the samples of a step."""

    def __init__(self, task: Callable, samples: Callable, **options: Any) -> None:
        self.method = Flatmatch(FlatmatchOptions(**options), task(LABELS))
        self.method.start_epoch(7)
        self.known, self.weak, self.strong = inputs(1, 4), inputs(2, 7), inputs(3, 7)
        self.labeled: Minibatch = samples(strong=self.known)
        self.unlabeled: Minibatch = samples(weak=self.weak, strong=self.strong)

    def loss(self, model: Network) -> Any:
        return self.method.semi_supervised_loss(model, self.labeled, LABELS, self.unlabeled)


@pytest.fixture
def make(task: Callable, samples: Callable) -> Callable[..., Step]:
    return lambda **options: Step(task, samples, **options)


def gradients(model: Network) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def by_hand(step: Step) -> tuple[dict[str, Tensor], float, float]:
    """Gradient, labelled and unlabelled loss: a backward pass at w, and one at w + rho g / |g|."""
    o, model = step.method.options, network()
    z = o.scale * model(torch.cat([step.known, step.weak]))[1]
    on_labeled = F.binary_cross_entropy_with_logits(z[:4], LABELS.double(), reduction="sum") / 4
    on_labeled.backward()
    first = gradients(model)
    p = torch.sigmoid(z[4:].detach())
    y, confidence = (p >= 0.5).double(), torch.maximum(p, 1 - p)
    tau = float(confidence.mean())
    taken = torch.zeros(7, K, dtype=torch.bool)
    for k in range(K):
        for i in range(7):
            shares = [float(q.mean()) if y[i, k] else 1 - float(q.mean()) for q in p.T]
            taken[i, k] = bool(confidence[i, k] >= tau * shares[k] / max(shares))
    assert taken.any() and not taken.all()
    norm = sum(float(g.square().sum()) for g in first.values()) ** 0.5
    worst = network()
    with torch.no_grad():
        for name, parameter in worst.named_parameters():
            parameter += o.perturbation * first[name] / norm
    z = o.scale * worst(step.strong)[1]
    each = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    on_unlabeled = o.unlabeled_weight * each[taken].sum() / 7
    on_unlabeled.backward()
    second = gradients(worst)
    total = {name: first[name] + second[name] for name in first}
    return total, float(on_labeled.detach()), float(on_unlabeled.detach())


@pytest.mark.parametrize(
    "options", [{}, {"perturbation": 0.7, "unlabeled_weight": 2.0, "scale": 8}], ids=str
)
def test_a_step_is_that_of_two_models(options: dict[str, Any], make: Callable[..., Step]) -> None:
    step, model = make(**options), network()
    loss = step.loss(model)
    expected, on_labeled, on_unlabeled = by_hand(step)
    assert float(loss.labeled.detach()) == pytest.approx(on_labeled, rel=1e-6)
    assert float(loss.unlabeled.detach()) == pytest.approx(on_unlabeled, rel=1e-6)
    loss.total.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    for name, parameter in network().named_parameters():
        assert torch.equal(model.get_parameter(name), parameter)  # the weights have not changed


def test_the_step_to_the_worst_case_weights_matters(make: Callable[..., Step]) -> None:
    values = []
    for rho in (0.0, 0.05, 0.5):
        loss = make(perturbation=rho).loss(network())
        values.append(float(loss.unlabeled.detach()))
        assert float(loss.labeled.detach()) > 0
    assert len(set(values)) == 3


def test_running_statistics_follow_the_first_pass_alone(make: Callable[..., Step]) -> None:
    step, model, expected = make(), network(), network()
    step.loss(model)
    expected(torch.cat([step.known, step.weak]))
    for name, buffer in expected.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], buffer), name


def test_thresholds_are_scaled_by_how_often_a_polarity_is_predicted() -> None:
    found = self_adaptive_thresholds(torch.tensor([0.9, 0.7]), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.2], [0.2, 0.8]]))
    never = self_adaptive_thresholds(torch.ones(2), torch.zeros(2))
    torch.testing.assert_close(never, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_empty_shares_of_a_step_give_finite_gradients(
    make: Callable[..., Step], samples: Callable
) -> None:
    for name in ("labeled", "unlabeled"):
        step, model, nothing = make(), network(), torch.zeros(0, 5, dtype=torch.float64)
        setattr(step, name, samples(weak=nothing, strong=nothing, total=4))
        size = len(step.labeled.rows)
        loss = step.method.semi_supervised_loss(model, step.labeled, LABELS[:size], step.unlabeled)
        assert float(getattr(loss, name).detach()) == 0
        loss.total.backward()
        found = gradients(model)
        assert all(torch.isfinite(g).all() for g in found.values())
        assert any(g.any() for g in found.values())


def test_half_precision_gives_about_the_same(make: Callable[..., Step]) -> None:
    step, model = make(scale=3), network().float()
    step.labeled, step.unlabeled = (
        Minibatch(m.rows, m.total, lambda kind, m=m: m.view(kind).float())
        for m in (step.labeled, step.unlabeled)
    )
    twin, found = copy.deepcopy(model), []
    for each, half in ((model, True), (twin, False)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = step.loss(each)
        loss.total.backward()
        found.append(torch.cat([g.flatten() for g in gradients(each).values()]))
    assert float(F.cosine_similarity(*found, dim=0)) > 0.98
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_its_thresholds_are_saved_in_a_checkpoint(make: Callable[..., Step]) -> None:
    step, other = make(), make()
    step.loss(network())
    other.method.load_state_dict(step.method.state_dict())
    logits = inputs(4, 7)[:, :K]
    both = step.method.judge(logits, 7), other.method.judge(logits, 7)
    assert all(map(torch.equal, *both))
