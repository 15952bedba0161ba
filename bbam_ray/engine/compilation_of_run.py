"""The ``Compilation`` of a run: which paths its network can take, and on what the gain depends."""

from __future__ import annotations

import time

import torch

from bbam_ray import distributed
from bbam_ray.config import RunConfig
from bbam_ray.engine.compilation import Compilation, Shape
from bbam_ray.engine.compile_records import GainRecords
from bbam_ray.engine.optim import Precision
from bbam_ray.engine.prefetch import COPYING
from bbam_ray.engine.task import TrainingData
from bbam_ray.models.fast_paths import CapturedPath, CompiledPath
from bbam_ray.models.network import Network

_MANY_EVALUATIONS = 1000  # full batches from which compiling the evaluation pays too


def compilation_of(
    config: RunConfig,
    data: TrainingData,
    networks: tuple[Network, Network],
    precision: Precision,
    epochs: int,
) -> Compilation:
    """The compilation for one phase of a run.

    Args:
        config: of the run.
        data: of the run.
        networks: the trained one, and the averaged one.
        precision: of the forward passes.
        epochs: that are left at most.
    """
    common, device = config.training, precision.device
    batch = (common.evaluation_batch, *data.input_shape)
    batches = epochs * (len(data.labeled) + len(data.unlabeled)) // common.evaluation_batch
    has_many = batches // distributed.world_size() >= _MANY_EVALUATIONS
    fixed = not data.views.vocabulary  # texts have many lengths
    evaluation = batch if has_many and fixed else None

    def compiled(shape: Shape | None) -> tuple[CompiledPath, CompiledPath | None]:
        averaged = CompiledPath(networks[1], (), evaluation) if evaluation else None
        return CompiledPath(networks[0], shape, evaluation), averaged

    def captured(shape: Shape) -> CapturedPath:
        with COPYING:
            return CapturedPath(networks[0], shape, precision.autocast(cached=False))

    network = (common.backbone, common.projector, common.hidden_dim, common.feature_dim)
    precise = str(precision.dtype) if precision.enabled else "float32"

    def records(shape: Shape | None) -> GainRecords:
        return GainRecords([*network, shape or data.input_shape, precise], device)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def agreed(decision: bool) -> bool:
        return bool(distributed.broadcast_float(float(decision), device))

    can_capture = device.type == "cuda" and fixed and not distributed.is_active()
    # On a CPU compiled training is slower than it is without; see docs/scaling.md.
    setting = "false" if common.compile == "auto" and device.type == "cpu" else common.compile
    return Compilation(
        setting,
        networks,
        compiled=compiled,
        captured=captured if can_capture else None,
        records=records,
        clock=clock,
        agreed=agreed,
    )
