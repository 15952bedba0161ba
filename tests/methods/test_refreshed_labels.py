"""Pseudo-labels of ``bbam``, ``cap``, ``d2l`` and ``dicap`` with thresholds and weights, by loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbam_ray.core.losses import asymmetric_loss
from bbam_ray.core.pseudo_label_weights import measured_shares
from bbam_ray.methods.bbam import Bbam, BbamOptions
from bbam_ray.methods.cap import Cap, CapOptions
from bbam_ray.methods.d2l import D2l, D2lOptions
from bbam_ray.methods.dicap import Dicap, DicapOptions
from bbam_ray.methods.method import HeldOut, Snapshot
from bbam_ray.models.network import Network

N_U, N_V, K = 60, 30, 3
LABELS = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.int8)
METHODS: dict[str, tuple[Any, Any]] = {
    "bbam": (Bbam, BbamOptions),
    "cap": (Cap, CapOptions),
    "d2l": (D2l, D2lOptions),
    "dicap": (Dicap, DicapOptions),
}
Make = Callable[..., Any]


@pytest.fixture
def held_out() -> HeldOut:
    rng = torch.Generator().manual_seed(11)
    labels = (torch.rand(N_V, K, generator=rng) < 0.4).to(torch.int8)
    labels[:, 2] = 0
    labels[0, 2] = 1  # too few positives
    return HeldOut(torch.randn(N_V, K, generator=rng) * 1.5 + 5 * labels - 2, labels)


@pytest.fixture
def make(task: Callable, random_cosines: Callable, held_out: HeldOut) -> Make:
    """Makes a method that has had a refresh, with or without validation samples."""

    def method(name: str, known: bool = True, **options: Any) -> Any:
        kind, kind_options = METHODS[name]
        made = kind(kind_options(**options), task(LABELS))
        features = torch.randn(5 + N_U, 4, generator=torch.Generator().manual_seed(2))
        cosine = random_cosines(1, N_U).detach()
        made.refresh(Snapshot(features, cosine, None, held_out if known else None))
        return made

    return method


def logits_of(method: Any, random_cosines: Callable) -> Tensor:
    """Logits of the unlabelled samples before the first refresh."""
    options = method.options
    cosine = random_cosines(1, N_U).detach()
    return options.scale * (cosine - getattr(options, "margin", 0.0) / 2)


@pytest.mark.parametrize("name", METHODS)
def test_metric_thresholds_decide_and_labels_with_few_positives_follow_their_frequency(
    name: str, make: Make, random_cosines: Callable
) -> None:
    method = make(name, pseudo_labels="metric", negative_keep=1.0, pseudo_label_weight="none")
    logits, assigned = logits_of(method, random_cosines), method.assigned
    assert method.uses_held_out
    for k in (0, 1):
        threshold = float(assigned.thresholds[1, k])
        assert torch.equal(assigned.labels[:, k] == 1, logits[:, k].double() >= threshold)
        assert assigned.confident[:, k].all()
    assert assigned.thresholds[:, 2].isnan().all()
    highest = logits[:, 2].argsort(descending=True)[: math.floor(0.2 * N_U)]
    assert set(assigned.labels[:, 2].nonzero().flatten().tolist()) == set(highest.tolist())
    records = method.label_records()
    for row, kind in enumerate(("negative", "positive")):
        recorded = records[f"pseudo_threshold_{kind}"]
        assert torch.allclose(recorded, assigned.thresholds[row], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", METHODS)
def test_what_lies_between_two_thresholds_is_not_used(
    name: str, make: Make, random_cosines: Callable
) -> None:
    method = make(name, pseudo_labels="midrange", negative_keep=1.0)
    logits, assigned = logits_of(method, random_cosines).double(), method.assigned
    between = 0
    for k in (0, 1):
        low, high = assigned.thresholds[:, k]
        assert torch.equal(assigned.labels[:, k] == 1, logits[:, k] >= high)
        assert torch.equal(assigned.confident[:, k], (logits[:, k] >= high) | (logits[:, k] <= low))
        between += int((~assigned.confident[:, k]).sum())
    assert between > 0


@pytest.mark.parametrize("weight", ["confidence", "measured"])
@pytest.mark.parametrize("name", METHODS)
def test_weights_follow_from_scores_and_labels(
    name: str, weight: str, make: Make, random_cosines: Callable, held_out: HeldOut
) -> None:
    method = make(name, pseudo_labels="frequency", pseudo_label_weight=weight)
    assert method.uses_held_out == (weight == "measured")
    shares = measured_shares(held_out.logits, held_out.labels)
    logits = logits_of(method, random_cosines)
    for i in range(0, N_U, 7):
        for k in range(K):
            p = 1 / (1 + math.exp(-float(logits[i, k])))
            if weight == "measured":
                position = min(max(p * 20 - 0.5, 0.0), 19.0)
                below = min(int(position), 18)
                p = float(shares[below] + (position - below) * (shares[below + 1] - shares[below]))
            expected = p if method.assigned.labels[i, k] else 1 - p
            assert float(method.assigned.weight[i, k]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_without_validation_samples_labels_follow_frequencies_and_weigh_the_same(
    name: str, make: Make
) -> None:
    plain = make(name, False, pseudo_labels="frequency", pseudo_label_weight="none")
    method = make(name, False, pseudo_labels="metric", pseudo_label_weight="measured")
    assert torch.equal(method.assigned.labels, plain.assigned.labels)
    assert torch.equal(method.assigned.confident, plain.assigned.confident)
    assert method.assigned.weight is None
    assert "pseudo_threshold_positive" not in method.label_records()


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_part_of_the_state_of_samples(name: str, make: Make, task: Callable) -> None:
    method = make(name, pseudo_labels="metric", pseudo_label_weight="measured")
    kind, kind_options = METHODS[name]
    fresh = kind(kind_options(), task(LABELS))
    labeled, unlabeled = method.sample_state()
    fresh.load_sample_state(labeled, {key: rows[[5, 2]] for key, rows in unlabeled.items()})
    assert torch.equal(fresh.assigned.weight, method.assigned.weight[[5, 2]])
    assert torch.equal(fresh.assigned.labels, method.assigned.labels[[5, 2]])


@pytest.mark.parametrize("name", ["bbam", "cap", "dicap"])
def test_the_loss_of_an_entry_is_multiplied_by_its_weight(
    name: str,
    make: Make,
    fixed_cosines: nn.Module,
    samples: Callable,
    random_cosines: Callable,
) -> None:
    method = make(name, pseudo_labels="frequency", pseudo_label_weight="measured")
    plain = make(name, pseudo_labels="frequency", pseudo_label_weight="none")
    rows = [7, 0, 33]
    gradients = []
    for each in (method, plain):
        others = random_cosines(3, 3)
        loss = each.semi_supervised_loss(
            fixed_cosines,
            samples(strong=random_cosines(2, 4)),
            LABELS[:4],
            samples(strong=others, rows=rows, total=9),
        )
        loss.unlabeled.backward()
        gradients.append(others.grad)
    assert gradients[1].any()
    assert torch.allclose(gradients[0], gradients[1] * method.assigned.weight[rows], rtol=1e-4)


def test_thresholds_count_and_a_graph_ranks(
    make: Make, random_cosines: Callable, held_out: HeldOut
) -> None:
    plain = make("cap", pseudo_labels="metric")
    graph = make("cap", pseudo_labels="metric", graph_neighbors=4)
    counts = plain.assigned.labels.sum(0)
    assert torch.equal(graph.assigned.labels.sum(0)[:2], counts[:2])
    assert not torch.equal(graph.assigned.labels, plain.assigned.labels)


class TestD2l:
    @pytest.fixture
    def network(self) -> Network:
        torch.manual_seed(0)
        network = Network(nn.Identity(), 6, 4, 4, K, "linear")
        network.auxiliary = D2l.auxiliary(D2lOptions(), network.feature_dim, K)
        return network

    def test_each_head_learns_from_its_own_samples(
        self, network: Network, make: Make, samples: Callable
    ) -> None:
        d2l = make("d2l")
        inputs = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
        loss = d2l.semi_supervised_loss(
            network,
            samples(strong=inputs[:4]),
            LABELS[:4],
            samples(strong=inputs[4:], rows=[3, 1, 0, 8, 20]),
        )
        with torch.no_grad():
            features, cosine = network(inputs)
            second = network.auxiliary(features[4:])
        rows, o = torch.tensor([3, 1, 0, 8, 20]), d2l.options
        expected = asymmetric_loss(o.scale * second, d2l.assigned.labels[rows])
        expected = torch.where(d2l.assigned.confident[rows], expected, 0.0).sum() / 5 * (12 / 4)
        assert float(loss.unlabeled.detach()) == pytest.approx(float(expected), rel=1e-5)
        expected = asymmetric_loss(o.scale * cosine[:4], LABELS[:4]).sum() / 4
        assert float(loss.labeled.detach()) == pytest.approx(float(expected), rel=1e-5)
        loss.unlabeled.backward(retain_graph=True)
        assert network.head.weight.grad is None and network.auxiliary.weight.grad.any()
        loss.labeled.backward()
        assert network.head.weight.grad.any()

    def test_the_second_head_starts_the_main_phase_as_a_copy(
        self, network: Network, make: Make
    ) -> None:
        assert not torch.equal(network.auxiliary.weight, network.head.weight)
        make("d2l").start_main_phase(network)
        assert torch.equal(network.auxiliary.weight, network.head.weight)
        assert network.auxiliary.weight is not network.head.weight


def test_published_settings() -> None:
    assert (CapOptions().pseudo_labels, CapOptions().pseudo_label_weight) == ("frequency", "none")
    assert (BbamOptions().pseudo_labels, BbamOptions().pseudo_label_weight) == ("frequency", "none")
    assert (D2lOptions().pseudo_labels, D2lOptions().threshold_beta) == ("metric", 0.5)
    assert DicapOptions().pseudo_labels == "midrange"
    assert DicapOptions().pseudo_label_weight == "measured"
