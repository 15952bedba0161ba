"""What a learning method is to the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray.config import MethodOptions

Views = Callable[[str], Tensor]


@dataclass(frozen=True)
class TaskInfo:
    """What a method knows of its task.

    Args:
        num_labels: K.
        labels: (N_l, K) int8, labels of the labelled training samples of this rank.
        positive_frequency: (K,) float64, over the labelled training samples of all ranks.
        labeled_batch, unlabeled_batch: samples of a step over all ranks.
    """

    num_labels: int
    labels: Tensor
    positive_frequency: Tensor
    labeled_batch: int
    unlabeled_batch: int


@dataclass(frozen=True)
class Minibatch:
    """This rank's share of the labelled or unlabelled samples of a step.

    Args:
        rows: (B,) int64 positions among this rank's labelled (or unlabelled) samples, as the snapshot
            of the epoch has them; in a warm-up step, which has no snapshot, among all labelled samples.
        total: samples of the step over all ranks; sums are divided by it, so that the gradient does
            not depend on the number of ranks.
        view: computes "weak" or "strong" inputs when it is asked to.
    """

    rows: Tensor
    total: int
    view: Views


@dataclass(frozen=True)
class Snapshot:
    """One evaluation pass over the weak views, at the start of an epoch (method, section 4).

    Labelled samples come before unlabelled ones. A refresh may overwrite all of it: at the size of COCO a
    copy of the features is 84 MB.

    Args:
        features: (N_l + N_u, D) of the raw model, this rank's samples.
        unlabeled_cosine: (N_u, K) of the averaged model.
        index: (N_l + N_u,) int64 numbers of the samples, unique over all ranks, in which ties go to the
            lower one; default: rank-ordered position.
    """

    features: Tensor
    unlabeled_cosine: Tensor
    index: Tensor | None = None

    @property
    def num_labeled(self) -> int:
        """N_l."""
        return len(self.features) - len(self.unlabeled_cosine)

    @property
    def unlabeled_index(self) -> Tensor | None:
        """(N_u,), or None where positions count."""
        return None if self.index is None else self.index[self.num_labeled :]


@dataclass(frozen=True)
class StepLoss:
    """Loss of a step: the sum of its parts, each this rank's share of the global value."""

    labeled: Tensor
    unlabeled: Tensor | None = None

    @property
    def total(self) -> Tensor:
        return self.labeled if self.unlabeled is None else self.labeled + self.unlabeled


class Method(ABC):
    """A way to learn from labelled and unlabelled samples.

    Subclasses hold whatever changes between epochs and give it out through ``state_dict``. None of
    their inputs contains the truth of an unlabelled sample.
    """

    name: ClassVar[str]
    Options: ClassVar[type[MethodOptions]]
    #: whether there is a main phase with unlabelled samples
    semi_supervised: ClassVar[bool]
    #: whether every epoch of the main phase begins with a ``refresh``
    refreshes: ClassVar[bool] = False

    def __init__(self, options: Any, task: TaskInfo) -> None:
        self.options, self.task = options, task

    @staticmethod
    def auxiliary(options: Any, feature_dim: int, num_labels: int) -> nn.Module | None:
        """A further network that is trained, averaged and kept as ``model.auxiliary``; None for none.

        Args:
            options: of the method.
            feature_dim: D, width of the features that ``model`` gives.
            num_labels: K.
        """
        return None

    @abstractmethod
    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Loss of a warm-up step (or of every step of a supervised method)."""

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Loss of a step of the main phase."""
        raise TypeError(f"method '{self.name}' does not use unlabelled samples")

    def refresh(self, snapshot: Snapshot) -> None:
        """Renew what the next epoch learns from."""
        raise TypeError(f"method '{self.name}' has no refresh")

    def start_epoch(self, unlabeled: int) -> None:  # noqa: B027 - most methods need nothing here
        """An epoch of the main phase begins, after its refresh if there is one.

        Args:
            unlabeled: N_u, samples of this rank in it; each comes up in one step.
        """

    @abstractmethod
    def logits(self, cosine: Tensor) -> Tensor:
        """Scores of samples whose labels are not known, (B, K); 0 is the untuned threshold."""

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        """Labels (N_u, K) and which of them are confident, for diagnostics; None if there are none."""
        return None

    def label_records(self) -> dict[str, Tensor]:
        """Figures per label, each (K,) or (K, bins), for the results; all ranks call."""
        return {}

    def scoring_state(self) -> dict[str, Tensor]:
        """What ``logits`` needs beside the network, to be kept with a trained model."""
        return {}

    def load_scoring_state(self, state: dict[str, Tensor]) -> None:
        if state:
            raise ValueError(
                f"method '{self.name}' scores without state, but was given {sorted(state)}"
            )

    def state_dict(self) -> dict[str, Any]:
        """What all ranks have alike."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError(f"method '{self.name}' has no state, but was given {sorted(state)}")

    def sample_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is known of each of this rank's labelled and unlabelled samples, row by row."""
        return {}, {}

    def load_sample_state(self, labeled: dict[str, Tensor], unlabeled: dict[str, Tensor]) -> None:
        """Take back ``sample_state`` of the samples that are this rank's now."""
        if labeled or unlabeled:
            given = sorted({**labeled, **unlabeled})
            raise ValueError(
                f"method '{self.name}' knows nothing of samples, but was given {given}"
            )


def concat_views(*views: Tensor) -> Tensor:
    """Views of several minibatches as one batch; shorter texts are filled up with absent tokens."""
    longest = max(view.shape[1] for view in views)
    if any(view.shape[1] < longest for view in views):
        views = tuple(F.pad(view, (0, longest - view.shape[1]), value=-1) for view in views)
    return torch.cat(views)


def masked_batch_mean(loss: Tensor, selected: Tensor | None, total: int) -> Tensor:
    """Sum of the selected entries of (B, K) elementwise losses / global batch size."""
    if selected is not None:
        loss = torch.where(selected, loss, 0.0)
    return loss.sum() / total
