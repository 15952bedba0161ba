"""Greedy ensemble selection against a direct implementation with scikit-learn's average precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from bbam_ray.core.ensembles import (
    ensemble_weights,
    mean_average_precision,
    select_ensemble,
    standardization,
)


def draw(seed: int, models: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(50, 3, generator=g) < 0.3).int()
    noise = torch.randn(models, 50, 3, generator=g)
    return labels + noise * torch.linspace(0.8, 2, models)[:, None, None], labels


def naive_map(scores: np.ndarray, labels: np.ndarray) -> float:
    values = [average_precision_score(y, z) for z, y in zip(scores.T, labels.T, strict=True)]
    return float(np.mean(values))


def naive_selection(
    scores: np.ndarray, labels: np.ndarray, start: list[int], rounds: int
) -> np.ndarray:
    """Lists of model numbers; every ensemble is scored from its whole list."""
    models, ensembles = list(start), [list(start)] if start else []
    for _ in range(rounds):
        values = [naive_map(scores[[*models, m]].sum(0), labels) for m in range(len(scores))]
        models = [*models, int(np.argmax(values))]
        ensembles.append(models)
    values = [naive_map(scores[each].sum(0), labels) for each in ensembles]
    best = ensembles[int(np.argmax(values))]
    return np.bincount(best, minlength=len(scores)) / len(best)


@pytest.mark.parametrize("start", [[], [0, 1, 2, 3], [3, 3]])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_greedy_search(seed: int, start: list[int]) -> None:
    scores, labels = draw(seed)
    begin = torch.from_numpy(np.bincount(start, minlength=4)) if start else None
    weights = select_ensemble(scores, labels, start=begin, rounds=8)
    assert np.allclose(weights, naive_selection(scores.numpy(), labels.numpy(), start, 8))
    assert weights.dtype == torch.float64 and float(weights.sum()) == pytest.approx(1)


def test_it_is_at_least_as_good_as_its_start_and_as_every_model() -> None:
    for seed in range(6):
        scores, labels = draw(seed)
        value = [mean_average_precision(z, labels) for z in scores]
        alone = select_ensemble(scores, labels)
        joined = torch.einsum("m,mnk->nk", alone, scores.double())
        assert mean_average_precision(joined, labels) >= max(value) - 1e-12
        start = torch.ones(4)
        weights = select_ensemble(scores, labels, start=start, rounds=3)
        mean = mean_average_precision(scores.double().mean(0), labels)
        joined = torch.einsum("m,mnk->nk", weights, scores.double())
        assert mean_average_precision(joined, labels) >= mean - 1e-12


def test_equal_models_go_to_the_lower_index() -> None:
    scores, labels = draw(0, models=1)
    weights = select_ensemble(scores.expand(3, -1, -1), labels)
    assert weights.tolist() == [1.0, 0.0, 0.0]


def test_no_rounds_return_the_start() -> None:
    scores, labels = draw(1)
    weights = select_ensemble(scores, labels, start=torch.tensor([2.0, 0.0, 1.0, 1.0]), rounds=0)
    assert weights.tolist() == [0.5, 0.0, 0.25, 0.25]


def test_a_label_without_positives_takes_no_part() -> None:
    scores, labels = draw(2)
    more = torch.cat([scores, torch.randn(4, 50, 1)], dim=2)
    padded = torch.cat([labels, torch.zeros(50, 1, dtype=torch.int32)], dim=1)
    assert torch.equal(select_ensemble(more, padded), select_ensemble(scores, labels))


def test_standardised_scores_have_mean_0_and_deviation_1() -> None:
    scores = torch.randn(40, 3) * torch.tensor([1e-3, 1.0, 1e3]) + 5
    constant = torch.cat([scores, torch.full((40, 1), 0.1)], dim=1)
    moments = standardization(constant)
    result = moments.apply(constant)
    assert torch.allclose(result.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(result.std(0, correction=0)[:3], torch.ones(3, dtype=torch.float64))
    assert result[:, 3].abs().max() < 1e-6 and moments.std[3] == 1


def test_wrong_arguments_are_refused() -> None:
    scores, labels = draw(0)
    with pytest.raises(ValueError, match=r"must be \(M, N, K\)"):
        select_ensemble(scores[0], labels)
    with pytest.raises(ValueError, match="no positive"):
        select_ensemble(scores, torch.zeros_like(labels))
    with pytest.raises(ValueError, match="4 finite weights"):
        select_ensemble(scores, labels, start=torch.tensor([1.0, -1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="a start or at least one round"):
        select_ensemble(scores, labels, rounds=0)


class TestEnsembleWeights:
    def test_without_draws_competitive_models_count_the_same(self) -> None:
        scores, labels = draw(3)
        value = [mean_average_precision(z, labels) for z in scores]
        tolerance = (max(value) - sorted(value)[1]) + 1e-9  # all but the worst
        weights = ensemble_weights(scores, labels, samples=0, tolerance=tolerance)
        assert weights.tolist() == [0 if v == min(value) else pytest.approx(1 / 3) for v in value]

    def test_draws_count_one_third(self) -> None:
        scores, labels = draw(3)
        start = torch.tensor([0.0, 0.0, 1.0, 1.0])
        mean = ensemble_weights(scores, labels, start=start, samples=0, tolerance=1)
        g = torch.Generator().manual_seed(5)
        greedy = torch.zeros(4).double()
        for _ in range(3):
            rows = torch.randint(0, 50, (50,), generator=g)
            greedy += select_ensemble(scores[:, rows], labels[rows], rounds=4) / 3
        weights = ensemble_weights(
            scores, labels, start=start, samples=3, rounds=4, tolerance=1, least=0, seed=5
        )
        assert torch.allclose(weights, (2 * mean + greedy) / 3)
        cut = ensemble_weights(
            scores, labels, start=start, samples=3, rounds=4, tolerance=1, least=0.3, seed=5
        )
        assert torch.equal(cut > 0, weights >= 0.3) and float(cut.sum()) == pytest.approx(1)

    def test_a_hopeless_start_is_replaced_by_the_best_model(self) -> None:
        g = torch.Generator().manual_seed(0)
        labels = (torch.rand(60, 3, generator=g) < 0.3).int()
        noise = torch.randn(2, 60, 3, generator=g)
        scores = torch.stack([noise[0], labels + 0.01 * noise[1]])
        weights = ensemble_weights(scores, labels, start=torch.tensor([1.0, 0.0]))
        assert weights.tolist() == [0.0, 1.0]

    def test_the_largest_weight_remains(self) -> None:
        scores, labels = draw(4)
        assert float(ensemble_weights(scores, labels, least=0.99).max()) == 1

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        scores, labels = draw(5)
        torch.manual_seed(1)
        one = ensemble_weights(scores, labels)
        torch.manual_seed(2)
        assert torch.equal(one, ensemble_weights(scores, labels))

    def test_wrong_arguments_are_refused(self) -> None:
        scores, labels = draw(0)
        with pytest.raises(ValueError, match="4 finite weights"):
            ensemble_weights(scores, labels, start=torch.ones(3))
        with pytest.raises(ValueError, match="no positive"):
            ensemble_weights(scores, torch.zeros_like(labels))
