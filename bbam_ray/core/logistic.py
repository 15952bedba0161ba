"""L2-regularised logistic regression, one binary problem per label, all of them solved at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: regularisation strengths that ``choose_regularization`` compares
REGULARIZATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_LIMIT = 5.0  # logit of a class that training samples do not contradict
_PASSES = 1000  # most evaluations of the loss
_SEARCH_TOLERANCE = 1e-5  # of solutions that are only compared by their log loss


def logistic_weights(
    features: Tensor, labels: Tensor, C: float, *, tolerance: float = 1e-9
) -> tuple[Tensor, Tensor]:
    """Weights and biases of K logistic regressions on the same samples.

    For each label k, minimises C sum_i log(1 + exp(-t_ik (w_k x_i + b_k))) + |w_k|^2 / 2 with t = 2 y - 1,
    as scikit-learn's ``LogisticRegression(C=C)``; biases are not regularised. The K problems are
    independent, so L-BFGS minimises their sum. Computed in float64.

    Args:
        features: (N, F) real numbers.
        labels: (N, K) 0/1.
        C: inverse strength of the regularisation, > 0; larger means less regularisation.
        tolerance: of the largest entry of the gradient of the mean loss, in units of a typical sample.

    Returns:
        Weights (K, F) and biases (K,), float64. A label with one class only has weights 0 and an infinite
        bias of that class's sign.

    Raises:
        ValueError: no samples, or C is not positive.

    Source: [scikit-learn, Linear models](https://scikit-learn.org/stable/modules/linear_model.html#binary-case);
    [L-BFGS](https://link.springer.com/article/10.1007/BF01589116).
    """
    if not len(features) or C <= 0:
        raise ValueError(f"{len(features)} samples and C = {C:g}: both must be positive")
    x, y = features.double(), labels.double()
    counts = y.sum(0)
    learned = (counts > 0) & (counts < len(y))
    weights = x.new_zeros(labels.shape[1], x.shape[1])
    biases = torch.where(counts > 0, math.inf, -math.inf).to(x)
    if not learned.any():
        return weights, biases
    target = y[:, learned]
    prior = target.mean(0)
    # In units in which the problem is well scaled: w = v / norm of a typical sample.
    unit = x.square().sum(1).mean().sqrt().clamp_min(1e-12)
    scaled = x / unit
    parameters = x.new_zeros(target.shape[1], x.shape[1] + 1)
    parameters[:, -1] = torch.logit(prior)
    parameters.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=_PASSES,
        tolerance_grad=tolerance,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = F.linear(scaled, parameters[:, :-1], parameters[:, -1])
        fit = F.binary_cross_entropy_with_logits(scores, target, reduction="sum")
        penalty = parameters[:, :-1].square().sum() / (2 * C * unit.square())
        value = (fit + penalty) / len(x)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    solved = parameters.detach()
    weights[learned], biases[learned] = solved[:, :-1] / unit, solved[:, -1]
    return weights, biases


def choose_regularization(
    features: Tensor,
    labels: Tensor,
    candidates: Sequence[float] = REGULARIZATIONS,
    *,
    folds: int = 5,
) -> float:
    """The smallest C whose log loss on held-out folds is within one standard error of the best one.

    Sample i is held out in fold i modulo ``folds``, so the order of the samples should be random. Labels
    without positives or without negatives are left out. The standard error is that of the mean over
    samples.

    Args:
        features: (N, F).
        labels: (N, K) 0/1.
        candidates: values of C, ascending.
        folds: limited to N; with fewer than two the first candidate is returned.

    Source: [The Elements of Statistical Learning](https://hastie.su.domains/ElemStatLearn/), section 7.10.
    """
    folds = min(folds, len(features))
    counts = labels.sum(0)
    counted = (counts > 0) & (counts < len(labels))
    if folds < 2 or not counted.any():
        return candidates[0]
    labels = labels[:, counted]
    if features.shape[1] > len(features):
        # Rotated to as many features as there are samples, which changes no solution: X = R^T Q^T.
        features = torch.linalg.qr(features.double().T, mode="r").R.T
    fold = torch.arange(len(features), device=features.device) % folds
    losses = []
    for C in candidates:
        scores = features.new_zeros(labels.shape, dtype=torch.float64)
        for held_out in range(folds):
            train = fold != held_out
            weights, biases = logistic_weights(
                features[train], labels[train], C, tolerance=_SEARCH_TOLERANCE
            )
            biases = biases.clamp(-_LIMIT, _LIMIT)  # of a label with one class only in this fold
            scores[~train] = F.linear(features[~train].double(), weights, biases)
        each = F.binary_cross_entropy_with_logits(scores, labels.double(), reduction="none")
        losses.append(each.mean(1))
    means = [float(loss.mean()) for loss in losses]
    best = min(range(len(means)), key=means.__getitem__)
    error = float(losses[best].std()) / math.sqrt(len(features))
    return next(C for C, mean in zip(candidates, means, strict=True) if mean <= means[best] + error)
