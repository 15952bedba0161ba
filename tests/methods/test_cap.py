"""``cap``: its pseudo-labels and the sum of its loss, against loops over entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbam_ray.methods.cap import Cap, CapOptions
from bbam_ray.methods.method import Snapshot

N_U, K = 40, 3
LABELS = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.int8)


@pytest.fixture
def make(task: Callable, random_cosines: Callable) -> Callable[..., Cap]:
    """Makes a method that has had a refresh; label 2 is absent from the labelled samples."""

    def cap(**options: Any) -> Cap:
        method = Cap(CapOptions(**options), task(LABELS))
        cosine = random_cosines(1, N_U).detach()
        method.refresh(Snapshot(torch.zeros(5 + N_U, 2), cosine))
        return method

    return cap


def asymmetric(cosine: float, y: int, options: CapOptions) -> float:
    p = 1 / (1 + math.exp(-options.scale * cosine))
    shifted = max(p - options.clip, 0)
    return -math.log(p) if y else -(shifted**options.gamma_negative) * math.log(1 - shifted)


def summed(cosine: Tensor, labels: Tensor, taken: Tensor, options: CapOptions) -> float:
    return sum(
        asymmetric(float(cosine[i, k].detach()), int(labels[i, k]), options)
        for i, k in taken.nonzero().tolist()
    )


@pytest.mark.parametrize("keep", [(1.0, 0.998), (0.6, 0.5), (0.0, 1.0)])
def test_pseudo_labels_follow_the_frequencies_of_the_labelled_samples(
    keep: tuple[float, float], make: Callable[..., Cap], random_cosines: Callable
) -> None:
    cap = make(positive_keep=keep[0], negative_keep=keep[1])
    cosine = random_cosines(1, N_U).detach()
    for k, frequency in enumerate([0.6, 0.4, 0.0]):
        order = cosine[:, k].argsort(descending=True).tolist()
        positive = set(order[: math.floor(frequency * N_U)])
        sure = set(order[: math.floor(keep[0] * frequency * N_U)])
        lowest = math.floor(keep[1] * (1 - frequency) * N_U)
        sure |= set(order[N_U - lowest :])
        assert set(cap.assigned.labels[:, k].nonzero().flatten().tolist()) == positive
        assert set(cap.assigned.confident[:, k].nonzero().flatten().tolist()) == sure


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 6, "unlabeled_weight": 0.5, "gamma_negative": 1, "clip": 0.2}],
    ids=str,
)
def test_the_loss_of_a_step_is_the_sum_over_confident_entries(
    options: dict[str, Any],
    make: Callable[..., Cap],
    fixed_cosines: nn.Module,
    samples: Callable,
    random_cosines: Callable,
) -> None:
    cap = make(positive_keep=0.7, negative_keep=0.6, **options)
    known, others = random_cosines(2, 4), random_cosines(3, 5)
    rows = [7, 0, 33, 12, 4]
    loss = cap.semi_supervised_loss(
        fixed_cosines,
        samples(strong=known),
        LABELS[:4],
        samples(strong=others, rows=rows, total=9),
    )
    everything = torch.ones(4, K, dtype=torch.bool)
    confident = cap.assigned.confident[rows]
    assert not confident.all()
    expected = summed(known, LABELS[:4], everything, cap.options) / 4
    assert float(loss.labeled.detach()) == pytest.approx(expected, rel=1e-4)
    weight = options.get("unlabeled_weight", 12 / 4)
    expected = weight * summed(others, cap.assigned.labels[rows], confident, cap.options) / 9
    assert float(loss.unlabeled.detach()) == pytest.approx(expected, rel=1e-4)
    loss.total.backward()
    assert not others.grad[~confident].any()


def test_the_warm_up_uses_every_entry_of_the_strong_view(
    make: Callable[..., Cap], fixed_cosines: nn.Module, samples: Callable, random_cosines: Callable
) -> None:
    cap, known = make(), random_cosines(2, 4)
    loss = cap.labeled_loss(fixed_cosines, samples(strong=known), LABELS[:4])
    expected = summed(known, LABELS[:4], torch.ones(4, K, dtype=torch.bool), cap.options) / 4
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-4)
    assert loss.unlabeled is None


def test_a_rank_without_unlabelled_samples_in_a_step_adds_nothing(
    make: Callable[..., Cap], fixed_cosines: nn.Module, samples: Callable, random_cosines: Callable
) -> None:
    nothing, known = torch.zeros(0, K), random_cosines(2, 4)
    loss = make().semi_supervised_loss(
        fixed_cosines, samples(strong=known), LABELS[:4], samples(strong=nothing, total=12)
    )
    assert loss.unlabeled == 0
    loss.total.backward()
    assert torch.isfinite(known.grad).all() and known.grad.any()


def test_sample_state_is_saved_and_restored_by_sample(
    make: Callable[..., Cap], task: Callable
) -> None:
    cap, fresh = make(), Cap(CapOptions(), task(LABELS))
    assert fresh.pseudo_labels() is None
    labeled, unlabeled = cap.sample_state()
    fresh.load_sample_state(labeled, {name: t[[5, 2]] for name, t in unlabeled.items()})
    assert torch.equal(fresh.assigned.labels, cap.assigned.labels[[5, 2]])
    assert torch.equal(fresh.assigned.confident, cap.assigned.confident[[5, 2]])
