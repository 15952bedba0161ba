"""Notes for the user about settings that do nothing in a run, or something else than they say alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bbam_ray.commands.view_notes import unused_view_setting
from bbam_ray.methods import METHODS
from bbam_ray.models.backbones import has_batch_norm

if TYPE_CHECKING:
    from bbam_ray.config import RunConfig


def run_notes(config: RunConfig, settings: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about unlabelled samples or settings that a run does not use, and about its batches.

    Args:
        config: of the run, with the device that it will use.
        settings: that the user has chosen, by name.
    """
    common, method = config.training, METHODS[config.training.method]
    if names := [name for name in method.unused if name in settings]:
        yield (
            f"note: method '{common.method}' does not use {', '.join(names)}; leave "
            f"{'it' if len(names) == 1 else 'them'} out"
        )
    if (note := unused_view_setting(common.method, settings)) is not None:
        yield note
    if not common.backbone_rate and not common.cache_features and "backbone_rate" in settings:
        yield (
            "note: the frozen backbone computes features of augmented images in every step; with --set "
            "cache_features=true it computes those of plain images once, and `bbam-ray data extract` "
            "stores them for whole searches"
        )
    if "batch_norm" not in (*settings, *method.unused) and _replaces_statistics(config):
        yield (
            "note: training replaces the statistics of batch normalisation that came with the weights; "
            "with few labelled images --set batch_norm=pretrained, which keeps them, can be much better"
        )
    if method.semi_supervised and common.warmup_epochs == common.epochs:
        yield (
            f"note: all {common.epochs} epochs are warm-up, so unlabelled samples are not used; raise "
            "--epochs or lower --warmup-epochs"
        )
    if common.batch_composition == "fraction" and "batch_composition" not in method.unused:
        labeled, unlabeled = common.labeled_batch, common.unlabeled_batch
        yield (
            "note: batch_composition = fraction divides labeled_batch + unlabeled_batch = "
            f"{labeled + unlabeled} into {labeled} labelled and {unlabeled} unlabelled samples at "
            f"labeled_fraction = {common.labeled_fraction}"
        )
    if common.amp_dtype == "float16" and common.device == "cpu":
        used = "bfloat16" if common.amp_cpu else "float32"
        yield f"note: amp_dtype = float16 is for GPUs; on the CPU this run computes in {used}"


def _replaces_statistics(config: RunConfig) -> bool:
    """Whether a run trains a backbone for images that has batch norm and pretrained weights."""
    common, size = config.training, config.flat().get("image_size")
    if size is None or common.weights == "none" or not common.backbone_rate:
        return False
    return has_batch_norm(common.backbone, (3, size, size))


def concurrency_note(at_once: int, chosen: int | None, address: str) -> str | None:
    """A sentence about a cluster of which a study may use a part only; None if its user has decided.

    Args:
        at_once: trials at the same time.
        chosen: ``--max-concurrent``; None = as many as fit on the driver's machine.
        address: of Ray.
    """
    if chosen is not None or address == "local":
        return None
    trials = "1 trial" if at_once == 1 else f"{at_once} trials"
    return (
        f"note: {trials} at once, as on this machine alone; give --max-concurrent the number that fits in "
        "the cluster"
    )
