"""How much of a disk a study will take: shown in the dry run, and looked for before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bbam_ray.errors import UsageError
from bbam_ray.files import free_bytes

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan

# An epoch's rows in the three tables, and the report with its plotting library.
_BYTES_PER_LABEL_ROW, _REPORT_BYTES = 120, 5_000_000


@dataclass(frozen=True)
class DiskNeed:
    """Bytes in the results folder.

    Args:
        models: of confirmed runs; they stay.
        checkpoints: of trials while they run, one each; they go when their trial ends.
        tables: with their versions before, and the report.
    """

    models: int
    checkpoints: int
    tables: int

    @property
    def whole(self) -> int:
        return self.models + self.checkpoints + self.tables


def expected_disk(plan: StudyPlan) -> DiskNeed:
    """What a study will take, as far as it can be known before."""
    from bbam_ray.engine.task import load_part
    from bbam_ray.methods import run_config
    from bbam_ray.models import build_network

    config = run_config({**plan.settings, **plan.space.published}, "plan")
    common, samples = config.training, load_part(config, "train")
    network = build_network(
        common.backbone,
        samples.input_shape,
        len(plan.label_names),
        hidden_dim=common.hidden_dim,
        feature_dim=common.feature_dim,
        weights=common.weights if common.backbone == "transformer" else "none",
        vocabulary=samples.views.vocabulary,
    )
    model = 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    rows = plan.num_samples * plan.stopping.epochs * (len(plan.label_names) + 2)
    # A checkpoint holds the model, its average and two moments of the optimizer, the old and the new one.
    return DiskNeed(
        models=plan.confirmations * model,
        checkpoints=plan.concurrency * 2 * 4 * model,
        tables=2 * rows * _BYTES_PER_LABEL_ROW + _REPORT_BYTES,
    )


def check_room(need: DiskNeed, folder: Path) -> None:
    """Raise a UsageError for a study that could not be finished."""
    free = free_bytes(folder)
    if free < need.whole:
        raise UsageError(
            f"results folder {folder}: the study needs about {need.whole / 1e6:.0f} MB and "
            f"{free / 1e6:.0f} MB are free; make room, or choose another --results"
        )


def disk_lines(need: DiskNeed, folder: Path, *, local: bool) -> list[str]:
    """For the dry run: what stays, what goes again, and what Ray may take beside it."""
    from bbam_ray.scale.cluster.scratch import KEPT_SESSIONS, LOG_BYTES, LOG_FILES

    lines = [
        f"Disk: about {need.whole / 1e6:.0f} MB of {free_bytes(folder) / 1e9:.1f} GB free: "
        f"{need.models / 1e6:.0f} MB of confirmed models, {need.checkpoints / 1e6:.0f} MB of checkpoints "
        "that go when their trials end, the rest tables and report."
    ]
    if local:
        lines.append(
            f"Ray's own folder: log files of {LOG_BYTES >> 20} MB, {LOG_FILES} older ones of each; it "
            f"goes at the end, and of studies that fail the last {KEPT_SESSIONS} stay."
        )
    return lines
