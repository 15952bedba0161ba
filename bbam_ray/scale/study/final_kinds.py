"""Kinds and sizes of a final answer; loads no library."""

from __future__ import annotations

from enum import StrEnum

MAX_TRIALS = (
    2  # whose models may be in an ensemble: the chosen one, and the best one if it is another
)
FULL_MODELS = 3  # of all labelled samples, with different training seeds, beside the fold models


class Final(StrEnum):
    """The kind of the final answer of a study."""

    single = "single"
    """One model, trained on all labelled samples."""

    ensemble = "ensemble"
    """The average of the fold models of the chosen configuration and of models of all labelled samples."""

    soup = "soup"
    """One model with the average of their weights."""

    best = "best"
    """An ensemble of fold models of good configurations and of baselines, by out-of-fold scores."""


class Pools(StrEnum):
    """Labelled samples of the runs that confirm an answer."""

    same = "same"
    """Those of the search."""

    new = "new"
    """Each seed draws its own, as papers do."""
