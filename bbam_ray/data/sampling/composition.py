"""How many samples of a batch are labelled: the setting ``batch_composition``.

The published batches have more labelled samples the more labels there are. Source: docs/method.md,
section 7.
"""

from __future__ import annotations

from collections.abc import Mapping

from bbam_ray.config import TrainingConfig
from bbam_ray.errors import UsageError

Shares = Mapping[float, float]  # labeled_fraction to the share of labelled samples in a batch

#: 2 + 30, 4 + 28, 8 + 24 and 16 + 16 of VOC, and twice that of COCO
IMAGE_SHARES: Shares = {0.05: 1 / 16, 0.1: 1 / 8, 0.15: 1 / 4, 0.2: 1 / 2}
#: 4 + 60, 8 + 56, 12 + 52 and 16 + 48
TEXT_SHARES: Shares = {0.05: 1 / 16, 0.1: 1 / 8, 0.15: 3 / 16, 0.2: 1 / 4}
#: 32 + 96 of AwA2
CONSTANT_SHARES: Shares = dict.fromkeys(IMAGE_SHARES, 1 / 4)


def composed(common: TrainingConfig, shares: Shares, source: str) -> TrainingConfig:
    """The settings with the batch sizes of ``batch_composition``.

    ``fraction`` divides ``labeled_batch + unlabeled_batch``, so settings that are composed already stay
    as they are.

    Args:
        common: settings of every run.
        shares: of the data set.
        source: origin of the settings, for the message.

    Raises:
        UsageError: no composition is published for the ``labeled_fraction``.
    """
    if common.batch_composition == "fixed":
        return common
    fraction, total = common.labeled_fraction, common.labeled_batch + common.unlabeled_batch
    share = None if fraction is None else shares.get(fraction)
    if share is None:
        raise UsageError(
            f"{source}: batch_composition = fraction needs a labeled_fraction of "
            f"{', '.join(map(str, shares))}, not {'null' if fraction is None else fraction}: change it, "
            "or use batch_composition = fixed with labeled_batch and unlabeled_batch"
        )
    labeled = max(1, round(total * share))
    return common.model_copy(update={"labeled_batch": labeled, "unlabeled_batch": total - labeled})
