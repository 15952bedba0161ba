"""Feature extraction: a pretrained network without its last layer, applied once to every image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from bbam_ray.config import RunConfig
from bbam_ray.data import Samples
from bbam_ray.data.views.images import Views
from bbam_ray.engine.evaluation import evaluation_batches
from bbam_ray.engine.task import load_part, views_of
from bbam_ray.errors import UsageError, nearest
from bbam_ray.files import atomic_file, remove_unfinished
from bbam_ray.models.backbones import build_backbone, check_backbone
from bbam_ray.models.weight_files import state_of_file, where_to_fetch
from bbam_ray.pretrained_images import PREFIX, is_timm


def feature_network(
    name: str, weights: str, input_shape: tuple[int, ...] = (3, 224, 224)
) -> nn.Module:
    """The network of ``extract_features``, in evaluation mode.

    Args:
        name: torchvision's name of a classification network, for example "resnet50", "convnext_tiny" or
            "vit_b_16", whose last linear layer is replaced by the identity; or ``timm:NAME``.
        weights: for torchvision "DEFAULT" or another name of its weights, a file with a state dict, or
            "none"; for timm see ``weights_file``.
        input_shape: of an image, for networks of timm.

    Raises:
        UsageError: unknown network or weights, weights that are not available, or no linear layer at the
            end.
    """
    if is_timm(name):
        check_backbone(name, weights, input_shape)
        return build_backbone(name, input_shape, weights)[0].eval()
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"unknown backbone '{name}'; {nearest(name, [*known, f'{PREFIX}NAME'])}")
    file = Path(weights).expanduser()
    try:
        if file.is_file():
            network: nn.Module = models.get_model(name, weights=None)
            network.load_state_dict(state_of_file(file))
        else:
            network = models.get_model(name, weights=None if weights == "none" else weights)
    except UsageError:
        raise
    except Exception as error:  # torchvision raises many kinds of errors
        reason = " ".join(str(error).split())[:200]
        known_weights = models.get_model_weights(name).__members__
        way_out = "give DEFAULT, none, or a file with a state dict"
        if not file.is_file() and weights in known_weights:
            way_out = where_to_fetch(known_weights[weights])
        raise UsageError(
            f"weights = '{weights}' of {name}: not available ({reason}); {way_out}"
        ) from None
    linear = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise UsageError(f"backbone '{name}' does not end with a linear layer; use another one")
    parent, _, last = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    return network.eval()


def extract_features(
    config: RunConfig,
    network: nn.Module,
    output: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the features of all images of a data set as a Parquet file for ``--dataset features``.

    Columns: ``file_name``, ``split`` (train, validation, test, unlabeled), ``labels`` (null for an image
    that is not labelled) and ``features`` (F float32). The file is written atomically.

    Args:
        config: its data set, folder, evaluation batch and device are used.
        network: maps images (B, 3, S, S), normalised like those of the data set, to features (B, F).
        output: must not exist.
        progress: called with the number of images done and the total.

    Returns:
        F, the number of features.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.training.device != "auto":
        device = torch.device(config.training.device)
    network.to(device)
    parts = {part: load_part(config, part) for part in ("train", "test")}
    total = sum(len(samples.labels) for samples in parts.values())
    done, width = 0, 0
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(output)
    with atomic_file(output) as temporary, ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for part, samples in parts.items():
            start = 0
            for block in _features(network, samples, config, device):
                width = block.shape[1]
                schema = _schema(width)
                writer = writer or stack.enter_context(
                    pq.ParquetWriter(temporary, schema, compression="zstd")
                )
                writer.write_batch(_batch(samples, part, start, block, schema))
                start += len(block)
                done += len(block)
                progress(done, total)
    return width


@torch.no_grad()
def _features(
    network: nn.Module, samples: Samples, config: RunConfig, device: torch.device
) -> Iterator[Tensor]:
    rows, batch = np.arange(len(samples.labels)), config.training.evaluation_batch
    views = Views(views_of(config, samples), 0.0, 0.0)
    for _, inputs in evaluation_batches(samples.inputs, rows, batch, views, device):
        yield network(inputs).float().flatten(1).cpu()


def _schema(width: int) -> pa.Schema:
    return pa.schema(
        [
            ("file_name", pa.string()),
            ("split", pa.string()),
            ("labels", pa.list_(pa.string())),
            ("features", pa.list_(pa.float32(), width)),
        ]
    )


def _batch(
    samples: Samples, part: str, start: int, block: Tensor, schema: pa.Schema
) -> pa.RecordBatch:
    rows = range(start, start + len(block))
    is_labeled = [samples.is_labeled is None or bool(samples.is_labeled[row]) for row in rows]
    names = [samples.names[row] if samples.names else f"{part} {row + 1}" for row in rows]
    labels = [
        [samples.label_names[k] for k in samples.labels[row].nonzero()[0]] if labeled else None
        for row, labeled in zip(rows, is_labeled, strict=True)
    ]
    splits = [part if labeled else "unlabeled" for labeled in is_labeled]
    if samples.is_validation is not None:
        splits = [
            "validation" if samples.is_validation[row] else split
            for row, split in zip(rows, splits, strict=True)
        ]
    features = pa.FixedSizeListArray.from_arrays(
        pa.array(block.reshape(-1).numpy()), block.shape[1]
    )
    return pa.RecordBatch.from_arrays([names, splits, labels, features], schema=schema)
