"""Forward passes without gradient, and the metrics of scored samples."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from bbam_ray.core.metrics import average_precision, measures
from bbam_ray.core.thresholds import tune_thresholds
from bbam_ray.data import Inputs
from bbam_ray.data.cache.token_rows import TokenRows
from bbam_ray.data.views.images import Views
from bbam_ray.engine.optim import Precision
from bbam_ray.engine.prefetch import Copies, in_background
from bbam_ray.engine.task import TrainingData
from bbam_ray.methods.method import Snapshot
from bbam_ray.models import Network


def read_rows(inputs: Inputs, rows: np.ndarray) -> Tensor:
    """Read rows of an array, which may be on disk, into memory."""
    return torch.from_numpy(np.ascontiguousarray(inputs[rows]))


def evaluation_batches(
    inputs: Inputs,
    rows: np.ndarray,
    batch: int,
    views: Views,
    device: torch.device,
    noise: Tensor | None = None,
    *,
    ahead: bool | None = None,
) -> Iterator[tuple[slice | Tensor, Tensor]]:
    """Plain views of samples in batches, or weak ones, each batch with its positions in ``rows``.

    In the order of ``rows``, but texts by length, so that batches need little padding.

    Args:
        inputs: all samples of a part.
        rows: (N,) of the samples.
        batch: samples at once.
        views: how samples become network inputs.
        device: of the network.
        noise: (N, W) random numbers of weak views of the rows; None = plain views.
        ahead: read the next batches in a thread; None = on a GPU.
    """
    order = None
    if isinstance(inputs, TokenRows):
        order = np.argsort(inputs.lengths[rows], kind="stable")
    copies = Copies(device)

    def read() -> Generator[tuple[slice, Callable[[], tuple[Tensor, ...]]]]:
        for start in range(0, len(rows), batch):
            part = slice(start, min(start + batch, len(rows)))
            chosen = np.arange(start, part.stop) if order is None else order[part]
            positions = [] if order is None else [torch.from_numpy(chosen)]
            numbers = [] if noise is None else [noise[chosen]]
            yield part, copies.start(read_rows(inputs, rows[chosen]), *numbers, *positions)

    batches = read()
    if device.type == "cuda" if ahead is None else ahead:
        batches = in_background(batches)
    with closing(batches):
        for part, ready in batches:
            samples, *rest = ready()
            made = views.plain(samples) if noise is None else views.weak(samples, rest.pop(0))
            yield rest[0] if rest else part, channels_last(made)


def channels_last(inputs: Tensor) -> Tensor:
    """Images in the memory layout in which convolutions are fastest; other inputs unchanged."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


@torch.no_grad()
def cosines(
    model: Network,
    inputs: Inputs,
    rows: np.ndarray,
    batch: int,
    views: Views,
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """Cosines (N, K) float32 of a model in evaluation mode for some rows."""
    model.eval()
    scores = torch.empty(len(rows), model.head.weight.shape[0], device=device)
    with precision.autocast():
        for positions, block in evaluation_batches(inputs, rows, batch, views, device):
            scores[positions] = model(block)[1].float()
    return scores


@torch.no_grad()
def snapshot(
    model: Network,
    averaged: Network,
    data: TrainingData,
    rows: tuple[np.ndarray, np.ndarray],
    views: Views,
    batch: int,
    device: torch.device,
    precision: Precision,
    noise: tuple[Tensor, Tensor] | None = None,
) -> Snapshot:
    """One read and one view of this rank's samples for both models (method, section 4).

    Args:
        model: computes features of labelled and unlabelled samples; left in evaluation mode.
        averaged: computes scores of unlabelled samples.
        rows: this rank's positions in the labelled and in the unlabelled pool.
        noise: random numbers of the weak views of these rows; None = plain views.
    """
    model.eval()
    labeled, unlabeled = data.labeled[rows[0]], data.unlabeled[rows[1]]
    num_labels, width = model.head.weight.shape
    numbers = noise or (None, None)
    features = torch.empty(len(labeled) + len(unlabeled), width, device=device)
    scores = torch.empty(len(unlabeled), num_labels, device=device)
    with precision.autocast():
        for positions, block in evaluation_batches(
            data.inputs, labeled, batch, views, device, numbers[0]
        ):
            features[: len(labeled)][positions] = model(block)[0].float()
        unlabeled_blocks = evaluation_batches(
            data.inputs, unlabeled, batch, views, device, numbers[1]
        )
        for positions, block in unlabeled_blocks:
            features[len(labeled) :][positions] = model(block)[0].float()
            scores[positions] = averaged(block)[1].float()
    index = np.concatenate([rows[0], rows[1] + len(data.labeled)])
    return Snapshot(features, scores, torch.from_numpy(index).to(device))


def validation_metrics(
    logits: Tensor, labels: Tensor
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Metrics of validation scores, and per label the AP and the threshold tuned on these scores.

    Args:
        logits, labels: (N, K), all validation samples.
    """
    thresholds = tune_thresholds(logits, labels).to(logits.device)
    by_label = {
        "val_ap": average_precision(logits, labels).tolist(),
        "threshold": thresholds.tolist(),
    }
    return measures(logits, labels, thresholds), by_label
