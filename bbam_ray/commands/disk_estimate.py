"""How much disk space a study needs: shown in the dry run, and checked before the study starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bbam_ray.data import Samples
from bbam_ray.errors import UsageError
from bbam_ray.files import free_bytes
from bbam_ray.models import build_network
from bbam_ray.scale.study.final_kinds import FULL_MODELS, MAX_TRIALS
from bbam_ray.scale.study.fold_store import KEPT_TRIALS
from bbam_ray.scale.study.plan import StudyPlan

# Bytes of an epoch's rows in the three tables, and of the report with its plotting library.
_BYTES_PER_LABEL_ROW, _REPORT_BYTES = 120, 5_000_000


@dataclass(frozen=True)
class DiskNeed:
    """Bytes in the results folder.

    Args:
        models: of confirmed runs and of folds, which are kept.
        checkpoints: of running trials, which are deleted when their trial ends.
        tables: with their previous versions, and the report.
    """

    models: int
    checkpoints: int
    tables: int

    @property
    def total(self) -> int:
        return self.models + self.checkpoints + self.tables


def expected_disk(plan: StudyPlan, samples: Samples) -> DiskNeed:
    """Estimate the disk space of a study.

    Args:
        plan: of the study.
        samples: of the training part.
    """
    common = plan.published_config.training
    network = build_network(
        common.backbone,
        samples.input_shape,
        len(plan.label_names),
        hidden_dim=common.hidden_dim,
        feature_dim=common.feature_dim,
        projector=common.projector,
        weights=common.weights if common.backbone == "transformer" else "none",
        vocabulary=samples.views.vocabulary,
    )
    model = 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    labels = len(plan.label_names)
    rows = plan.num_samples * plan.stopping.epochs * (labels + 1 + plan.folds)
    models = plan.confirmations
    if plan.with_models:
        # Two models for each fold: of kept trials, of further seeds; those in answers are copies.
        folds = min(plan.num_samples, KEPT_TRIALS + 1) + MAX_TRIALS * (plan.confirm_seeds - 1)
        models += 2 * folds * plan.folds + MAX_TRIALS * plan.folds * plan.confirm_seeds
        models += 2 * MAX_TRIALS * FULL_MODELS * plan.confirm_seeds
    # A checkpoint holds the model, its average and two moments of the optimizer; the old one is deleted
    # after the new one is written.
    return DiskNeed(
        models=models * model,
        checkpoints=plan.concurrency * 2 * 4 * model,
        tables=2 * rows * _BYTES_PER_LABEL_ROW + _REPORT_BYTES,
    )


def check_disk(need: DiskNeed, folder: Path) -> None:
    """Raise a UsageError for a study that would fill the disk."""
    free = free_bytes(folder)
    if free < need.total:
        raise UsageError(
            f"results folder {folder}: the study needs about {need.total / 1e6:.0f} MB and "
            f"{free / 1e6:.0f} MB are free; free some space, or choose another --results"
        )
