"""``load_model``: a trained model in use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbam_ray.engine.model import Model


def load_model(folder: Path | str, device: str = "auto") -> Model:
    """Open a trained model for use: ``predict_proba``, ``predict``, ``logits``, ``label_names``.

    Args:
        folder: of an exported or confirmed model, of a run, or of a study (its best configuration,
            first seed).
        device: "auto" uses a GPU if there is one.

    Raises:
        UsageError: there is no model, or its files are damaged or do not belong together.
    """
    from bbam_ray.engine.model import load_model as load  # loads torch

    return load(folder, device)
