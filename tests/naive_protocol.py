"""The published protocol on images, in float64 and without this package (docs/method.md, sections 2 to 7).

Everything is a plain function of arrays: the small convolutional network, its batch norm, AdamW, the
schedule, the moving average, the refresh and the losses. Images of the steps and initial weights are those
of the run that it is compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
CONVOLUTIONS = ((0, True), (4, True), (8, False), (11, False))  # layer, and whether pooling follows


# ------------------------------------------------------------------------------------ schedule


def height(step: int, steps: int) -> tuple[float, bool]:
    """Height of a one-cycle schedule in the middle of a step; the peak is at 20 % of the steps."""
    position = (step + 0.5) / steps
    if position < 0.2:
        return 0.5 - 0.5 * math.cos(math.pi * position / 0.2), True
    return 0.5 + 0.5 * math.cos(math.pi * (position - 0.2) / 0.8), False


def learning_rates(peak: float, taken: int, steps: int) -> list[float]:
    """From peak / 25 to the peak, then towards peak / 25 / 10,000; only the first ``taken`` steps."""
    rates = []
    for step in range(taken):
        share, rises = height(step, steps)
        end = peak / 25 if rises else peak / 25 / 10_000
        rates.append(end + (peak - end) * share)
    return rates


def momenta(taken: int, steps: int) -> list[float]:
    """0.95 -> 0.85 -> 0.95, against the learning rate."""
    return [0.95 - 0.10 * height(step, steps)[0] for step in range(taken)]


# ------------------------------------------------------------------------------------- network


def forward(weights: Weights, images: Tensor, *, training: bool) -> tuple[Tensor, Tensor, Weights]:
    """Features (B, D), cosines (B, K) and the running statistics after this batch."""
    running: Weights = {}
    hidden = images
    for layer, pools in CONVOLUTIONS:
        hidden = F.conv2d(hidden, weights[f"backbone.{layer}.weight"], padding=1)
        norm = f"backbone.{layer + 1}"
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        if training:
            count = hidden.numel() / hidden.shape[1]
            batch_mean = hidden.mean((0, 2, 3))
            batch_variance = ((hidden - batch_mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
            unbiased = batch_variance.detach() * count / (count - 1)
            running[f"{norm}.running_mean"] = 0.9 * mean + 0.1 * batch_mean.detach()
            running[f"{norm}.running_var"] = 0.9 * variance + 0.1 * unbiased
            mean, variance = batch_mean, batch_variance
        scale = weights[f"{norm}.weight"] / (variance + 1e-5).sqrt()
        hidden = (hidden - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        hidden = F.gelu(hidden + weights[f"{norm}.bias"].view(1, -1, 1, 1))
        if pools:
            hidden = F.avg_pool2d(hidden, 2)
    pixels = hidden.flatten(2)
    hidden = pixels.exp().mean(2).log()
    hidden = F.gelu(hidden @ weights["projector.0.weight"].T + weights["projector.0.bias"])
    features = hidden @ weights["projector.2.weight"].T + weights["projector.2.bias"]
    labels = weights["head.weight"]
    unit, directions = (
        features / features.norm(dim=1, keepdim=True),
        labels / labels.norm(dim=1, keepdim=True),
    )
    return features, unit @ directions.T, running


def trainable(name: str) -> bool:
    return "running" not in name


class Adam:
    """AdamW with weight decay 1e-4 on every weight."""

    def __init__(self, weights: Weights) -> None:
        names = [name for name in weights if trainable(name)]
        self.first = {name: torch.zeros_like(weights[name]) for name in names}
        self.second = {name: torch.zeros_like(weights[name]) for name in names}
        self.steps = 0

    def step(self, weights: Weights, gradients: Weights, rate: float, beta1: float) -> None:
        self.steps += 1
        for name, gradient in gradients.items():
            self.first[name] = beta1 * self.first[name] + (1 - beta1) * gradient
            self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
            mean = self.first[name] / (1 - beta1**self.steps)
            deviation = (self.second[name] / (1 - 0.999**self.steps)).sqrt()
            weights[name] = weights[name] * (1 - rate * 1e-4) - rate * mean / (deviation + 1e-8)


@dataclass
class Model:
    """Trained weights, and their average with a fixed decay; batch norm's statistics are in both."""

    weights: Weights
    average: Weights
    decay: float

    def step(self, adam: Adam, loss: Any, rate: float, beta1: float) -> float:
        """A step on ``loss(weights) -> (loss, running statistics)``; returns the loss before it."""
        leaves = {n: t.clone().requires_grad_(trainable(n)) for n, t in self.weights.items()}
        value, running = loss(leaves)
        value.backward()
        gradients = {n: t.grad for n, t in leaves.items() if t.grad is not None}
        adam.step(self.weights, gradients, rate, beta1)
        self.weights |= running
        for name, tensor in self.weights.items():
            self.average[name] = self.decay * self.average[name] + (1 - self.decay) * tensor
        return float(value.detach())

    def restart_average(self) -> None:
        self.average = {name: tensor.clone() for name, tensor in self.weights.items()}


# ------------------------------------------------------------------------------------- warm-up


def warmup_loss(
    weights: Weights, strong: Tensor, weak: Tensor, labels: Tensor, scale: float, margin: float
) -> tuple[Tensor, Weights]:
    """Both views in one batch, for batch norm; loss on the strong ones, on every entry."""
    _, cosine, running = forward(weights, torch.cat([strong, weak]), training=True)
    z = scale * (cosine[: len(strong)] - labels * margin)
    loss = torch.where(labels == 1, F.softplus(-z), F.softplus(z))
    return loss.sum() / len(strong), running


# ------------------------------------------------------------------------------------- refresh


@dataclass
class Refreshed:
    """What the first refresh decides.

    Args:
        pseudo, confident: (N_u, K) 0/1 and bool.
        labeled_mask, unlabeled_mask: entries that the loss uses.
        mean, variance: (2, K) of the angles.
    """

    pseudo: np.ndarray
    confident: np.ndarray
    labeled_mask: np.ndarray
    unlabeled_mask: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def refresh(
    scores: np.ndarray, features: np.ndarray, labels: np.ndarray, eta: float, negative_keep: float
) -> Refreshed:
    """Sections 4 to 6, with nothing known before.

    Args:
        scores: (N_u, K) cosines of the average.
        features: (N_l + N_u, D) of the trained weights.
        labels: (N_l, K) of the labelled samples.
    """
    count, known = len(scores), len(labels)
    pseudo, confident = np.zeros(scores.shape, int), np.zeros(scores.shape, bool)
    for k in range(labels.shape[1]):
        frequency = labels[:, k].sum() / known
        ascending = np.argsort(scores[:, k], kind="stable")
        positives = math.floor(frequency * count)
        pseudo[ascending[count - positives :], k] = 1
        confident[ascending[count - positives :], k] = True
        confident[ascending[: math.floor(negative_keep * (1 - frequency) * count)], k] = True
    everything = np.concatenate([labels, pseudo])
    valid = np.concatenate([np.ones(labels.shape, bool), confident])
    mask = valid & (everything == 1)
    mean, variance = np.zeros((2, labels.shape[1])), np.zeros((2, labels.shape[1]))
    lengths = np.linalg.norm(features, axis=1)
    for k in range(labels.shape[1]):
        positive = valid[:, k] & (everything[:, k] == 1)
        prototype = features[positive].mean(0)
        cosine = features @ prototype / lengths / np.linalg.norm(prototype)
        angle = np.arccos(np.clip(cosine, -1, 1))
        for polarity in (0, 1):
            group = angle[valid[:, k] & (everything[:, k] == polarity)]
            mean[polarity, k] = group.mean()
            variance[polarity, k] = ((group - group.mean()) ** 2).sum() / (len(group) - 1)
        negatives = np.flatnonzero(valid[:, k] & (everything[:, k] == 0))
        wanted = min(math.floor(eta * positive.sum()), len(negatives))
        hardest = negatives[np.argsort(-cosine[negatives], kind="stable")[:wanted]]
        mask[hardest, k] = True
    return Refreshed(pseudo, confident, mask[:known], mask[known:], mean, variance)


def main_loss(
    weights: Weights,
    images: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    masks: tuple[Tensor, Tensor],
    known: Refreshed,
    scale: float,
    margin: float,
) -> tuple[Tensor, Weights]:
    """Sections 2 and 3; pairs are of labelled and unlabelled samples. The sum over all entries / B_l."""
    _, cosine, running = forward(weights, torch.cat(images), training=True)
    y = torch.cat(targets).double()
    theta = torch.acos(cosine)
    mean, variance = torch.from_numpy(known.mean), torch.from_numpy(known.variance)
    a = (variance.mean(0) / variance).sqrt()
    psi = a.unsqueeze(1) * theta + ((1 - a) * mean).unsqueeze(1)
    phi = torch.cos((1 - y) * psi[0] + y * psi[1])
    z = scale * (phi - y * margin)
    loss = torch.where(y == 1, F.softplus(-z), F.softplus(z))
    return (loss * torch.cat(masks)).sum() / len(images[0]), running
