"""From the bags of a final answer to the files of one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bbam_ray.engine.confirm import Decisions
from bbam_ray.engine.ensemble_folder import EnsembleMember, save_ensemble
from bbam_ray.engine.folds import Files, files_of
from bbam_ray.engine.weight_average import save_average
from bbam_ray.scale.study.bags import Bags
from bbam_ray.scale.study.final_answer import Bag, FinalAnswer
from bbam_ray.scale.study.final_kinds import Final


def compose(
    final: FinalAnswer, bags: Sequence[Bag], models: Bags, seed: int, decisions: Decisions
) -> Files:
    """The files of the model folder of an answer.

    Args:
        final: an ensemble or an average of weights.
        bags: of one seed, all that the answer names.
        models: where their models are.
        seed: of the training.
        decisions: of the answer.

    Raises:
        UsageError: a model is missing or damaged.
    """
    with TemporaryDirectory(prefix="bbam-ray-") as scratch:
        folder = Path(scratch) / "model"
        if final.kind is Final.soup:
            folders = list(models.members_of(bags[0], seed))
            save_average(folder, folders, decisions.thresholds, decisions.calibration)
        else:
            members = [member for bag in bags for member in _members(final, bag, models, seed)]
            save_ensemble(folder, members, decisions.thresholds, decisions.calibration)
        return files_of(folder)


def _members(final: FinalAnswer, bag: Bag, models: Bags, seed: int) -> list[EnsembleMember]:
    """The models of a bag, which share its weight; all have the scale of its out-of-fold scores."""
    weight, scale = final.weights[bag.name], bag.standardization
    shares = models.members_of(bag, seed)
    return [EnsembleMember(folder, weight * share, scale) for folder, share in shares.items()]
