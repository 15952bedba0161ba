"""The interface of a learning method, and what the engine hands to it.

A method implements ``labeled_loss``, ``logits`` and, with unlabelled samples, ``semi_supervised_loss``.
The other hooks have defaults. This is the order in which the engine calls them, on every rank:

    auxiliary                             once, when the network is built
    __init__
    load_state_dict, load_sample_state    only when a run resumes from a checkpoint
    load_epoch_state                      only if that is in the middle of an epoch

    each epoch of the warm-up, and every epoch of a supervised method:
        labeled_loss                      each step
        label_records
        logits                            validation scores

    start_main_phase                      once per network: the trained and the averaged one

    each epoch of the main phase:
        refresh                           once, if refreshes is True; gets a Snapshot
        start_epoch                       once
        semi_supervised_loss              each step
        label_records
        pseudo_labels                     diagnostics; training never sees their result
        logits                            validation scores

    state_dict, sample_state              when a checkpoint is written
    epoch_state                           when that is in the middle of an epoch
    scoring_state                         when a trained model is saved

    auxiliary, __init__,
    load_scoring_state, logits            when a saved model predicts; nothing else is called then

Three kinds of state, for three readers. ``state_dict`` is what changes during training and is equal on
all ranks; it is saved once. ``sample_state`` is what the method knows of single samples, one row each;
every rank saves its own rows, and they are redistributed if a run resumes with another number of ranks.
``scoring_state`` is the small part of the state that ``logits`` needs; it is stored with a trained
model, which has no training samples any more. A method without memory needs none of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bbam_ray.config import MethodOptions
from bbam_ray.models.network import Network

Views = Callable[[str], Tensor]
OptionsT = TypeVar("OptionsT")  # the class ``Options`` of a method


@dataclass(frozen=True)
class TaskInfo:
    """What a method knows of its task.

    Args:
        num_labels: K.
        labels: (N_l, K) int8, labels of the labelled training samples of this rank.
        positive_frequency: (K,) float64 in [0, 1], over the labelled training samples of all ranks.
        labeled_batch: B_l, labelled samples of a step over all ranks.
        unlabeled_batch: B_u, unlabelled samples of a step over all ranks.
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
        rows: (B,) int64 row indices among this rank's labelled (or unlabelled) samples, in the order of
            the epoch's snapshot; in a warm-up step, which has no snapshot, among all labelled samples.
        total: samples of the step over all ranks. Sums are divided by it, so that the gradient does not
            depend on the number of ranks.
        view: computes the network inputs of the view "weak" or "strong"; called when they are needed.
    """

    rows: Tensor
    total: int
    view: Views


@dataclass(frozen=True)
class HeldOut:
    """Scores of labelled samples by a model that was not trained on them; equal on all ranks.

    Args:
        logits: (N_v, K) of the validation samples by the averaged model, from ``Method.logits`` before the
            refresh; or out-of-fold scores of the labelled samples, at the end of the training of folds.
        labels: (N_v, K) 0/1.
        of_this_model: False for out-of-fold scores: another model has another scale.
    """

    logits: Tensor
    labels: Tensor
    of_this_model: bool = True


@dataclass(frozen=True)
class Snapshot:
    """Features and scores of one evaluation pass over the weak views, at the start of an epoch.

    Labelled samples come before unlabelled ones. A refresh may overwrite all of it: at the size of COCO a
    copy of the features is 84 MB. Source: docs/method.md, section 4.

    Args:
        features: (N_l + N_u, D) of the trained model, this rank's samples.
        unlabeled_cosine: (N_u, K) in [-1, 1] of the averaged model.
        index: (N_l + N_u,) int64 sample indices, unique over all ranks; ties go to the lower one.
            Default: the rank-ordered position.
        held_out: held-out scores of all ranks, if there are any and the method ``uses_held_out``.
    """

    features: Tensor
    unlabeled_cosine: Tensor
    index: Tensor | None = None
    held_out: HeldOut | None = None

    @property
    def num_labeled(self) -> int:
        """N_l."""
        return len(self.features) - len(self.unlabeled_cosine)

    @property
    def unlabeled_index(self) -> Tensor | None:
        """(N_u,) sample indices of the unlabelled samples; None = the rank-ordered position."""
        return None if self.index is None else self.index[self.num_labeled :]


@dataclass(frozen=True)
class StepLoss:
    """Loss of a step in two parts; each is this rank's share, and the ranks' shares add up to the loss.

    Args:
        labeled: scalar, of the labelled samples.
        unlabeled: scalar, of the unlabelled samples; None in the warm-up.
    """

    labeled: Tensor
    unlabeled: Tensor | None = None

    @property
    def total(self) -> Tensor:
        return self.labeled if self.unlabeled is None else self.labeled + self.unlabeled


class Method(ABC, Generic[OptionsT]):
    """A way to learn from labelled and unlabelled samples.

    See the top of this module for the order of the calls. No argument of any hook contains the labels of
    an unlabelled sample.

    Args:
        options: settings of the method, an instance of ``Options``.
        task: number of labels, labels of this rank's labelled samples, batch sizes.
    """

    name: ClassVar[str]
    Options: ClassVar[type[MethodOptions]]
    #: values of unused settings, regardless of what the user chooses
    fixed_settings: ClassVar[dict[str, Any]] = {}
    #: settings of every run that the method does not use
    unused: ClassVar[tuple[str, ...]] = ()
    #: whether there is a main phase with unlabelled samples
    semi_supervised: ClassVar[bool]
    #: whether every epoch of the main phase begins with a ``refresh``
    refreshes: ClassVar[bool] = False

    def __init__(self, options: OptionsT, task: TaskInfo) -> None:
        self.options, self.task = options, task

    @property
    def uses_held_out(self) -> bool:
        """Whether refreshes need held-out scores."""
        return False

    @staticmethod
    def auxiliary(options: Any, feature_dim: int, num_labels: int) -> nn.Module | None:
        """A second network that is trained, averaged and saved as ``model.auxiliary``, or None.

        Args:
            options: settings of the method.
            feature_dim: D, width of the features that ``model`` returns.
            num_labels: K.
        """
        return None

    @classmethod
    def adapted(cls, options: Any, network: Network, *, features: int | None) -> Network:
        """The network for this method, before its weights are loaded or trained.

        Args:
            options: settings of the method.
            network: backbone, projector and cosine head.
            features: F, for samples that are feature vectors; None = other samples.
        """
        return network

    @abstractmethod
    def labeled_loss(self, model: nn.Module, labeled: Minibatch, labels: Tensor) -> StepLoss:
        """Loss of a warm-up step (or of every step of a supervised method).

        Args:
            model: maps inputs to features (B, D) and cosines (B, K), in training mode.
            labeled: the labelled samples of the step.
            labels: (B, K) int8, their labels.
        """

    def start_main_phase(self, model: nn.Module) -> None:
        """Change a network in place at the end of the warm-up; every rank does the same.

        Args:
            model: the trained or the averaged network.
        """

    def semi_supervised_loss(
        self, model: nn.Module, labeled: Minibatch, labels: Tensor, unlabeled: Minibatch
    ) -> StepLoss:
        """Loss of a step of the main phase.

        Args:
            model: maps inputs to features (B, D) and cosines (B, K), in training mode.
            labeled: the labelled samples of the step.
            labels: (B, K) int8, their labels.
            unlabeled: the unlabelled samples of the step.
        """
        raise TypeError(f"method '{self.name}' does not use unlabelled samples")

    def refresh(self, snapshot: Snapshot) -> None:
        """Update what the steps of the next epoch use, for example pseudo-labels and statistics.

        Args:
            snapshot: features and scores of this rank's samples.
        """
        raise TypeError(f"method '{self.name}' has no refresh")

    def start_epoch(self, unlabeled: int) -> None:
        """Prepare an epoch of the main phase, after its refresh if there is one.

        Args:
            unlabeled: N_u, unlabelled samples of this rank in the epoch; each is in exactly one step.
        """

    @abstractmethod
    def logits(self, cosine: Tensor) -> Tensor:
        """Scores of samples whose labels are unknown; 0 is the threshold before tuning.

        Args:
            cosine: (B, K) in [-1, 1].

        Returns:
            (B, K) logits, increasing with the probability of the label.
        """

    def pseudo_labels(self) -> tuple[Tensor, Tensor] | None:
        """Labels (N_u, K) 0/1 and confident (N_u, K) bool of this rank, for diagnostics; None = none."""
        return None

    def label_records(self) -> dict[str, Tensor]:
        """Numbers for the results by label, each (K,) or (K, bins); every rank calls this.

        A key is a column of ``labels.parquet``. A new key needs a column in ``LABELS`` of
        ``bbam_ray/results/schemas.py``; an unknown one raises an error when the row is written.
        """
        return {}

    def scoring_state(self) -> dict[str, Tensor]:
        """Tensors that ``logits`` needs in addition to the network; stored with a trained model."""
        return {}

    def load_scoring_state(self, state: dict[str, Tensor]) -> None:
        """Restore ``scoring_state``."""
        if state:
            raise ValueError(f"method '{self.name}' has no scoring state, but got {sorted(state)}")

    def state_dict(self) -> dict[str, Any]:
        """What changes during training and is equal on all ranks: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        if state:
            raise ValueError(f"method '{self.name}' has no state, but got {sorted(state)}")

    def sample_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the method knows of this rank's labelled and unlabelled samples, one row per sample."""
        return {}, {}

    def load_sample_state(self, labeled: dict[str, Tensor], unlabeled: dict[str, Tensor]) -> None:
        """Restore ``sample_state`` of the samples that are on this rank now."""
        if labeled or unlabeled:
            names = sorted({**labeled, **unlabeled})
            raise ValueError(f"method '{self.name}' has no sample state, but got {names}")

    def epoch_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a refresh or ``start_epoch`` has set for one epoch, and no other state contains.

        Returns:
            What is equal on all ranks, tensors and plain values; and rows of this rank's unlabelled
            samples.
        """
        return {}, {}

    def load_epoch_state(self, common: dict[str, Any], unlabeled: dict[str, Tensor]) -> None:
        """Restore ``epoch_state``, the rows those of the samples that are on this rank now."""
        if common or unlabeled:
            names = sorted({**common, **unlabeled})
            raise ValueError(f"method '{self.name}' has no state of an epoch, but got {names}")


def concat_views(*views: Tensor) -> Tensor:
    """Concatenate views of several minibatches to one batch; shorter texts are padded.

    Args:
        views: (B_i, C, H, W) images, (B_i, F) features or (B_i, L_i) tokens; padding is the absent
            token -1.

    Returns:
        (sum of B_i, ...).
    """
    longest = max(view.shape[1] for view in views)
    if any(view.shape[1] < longest for view in views):
        views = tuple(F.pad(view, (0, longest - view.shape[1]), value=-1) for view in views)
    return torch.cat(views)


def masked_batch_mean(loss: Tensor, selected: Tensor | None, total: int) -> Tensor:
    """Masked sum over entries, averaged over the samples of the global batch.

    sum of the selected loss_ik / total. The denominator is the number of samples, not of selected entries,
    so that the gradient depends neither on the number of ranks nor on how many entries other ranks
    select.

    Args:
        loss: (B, K) elementwise losses of this rank's share of the batch, which may be empty.
        selected: (B, K) bool, broadcast; None selects all entries.
        total: samples of the batch over all ranks.

    Returns:
        Scalar, this rank's share of the loss.
    """
    if selected is not None:
        loss = torch.where(selected, loss, 0.0)
    return loss.sum() / total
