"""A trained model as files: weights in safetensors, everything else in JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from bbam_ray.engine.trainer import Trainer

WEIGHTS, CONFIG, LABELS, THRESHOLDS = (
    "model.safetensors",
    "config.json",
    "labels.json",
    "thresholds.json",
)


def save_model(folder: Path, trainer: Trainer, thresholds: list[float]) -> None:
    """Write the averaged network, what the method needs for scoring, and how to build both.

    The files belong together, so they are written beside ``folder`` and take its place as a whole.

    Args:
        folder: made, or replaced.
        thresholds: (K,) on logits.
    """
    contents = {
        CONFIG: trainer.config.flat() | {"input_shape": list(trainer.data.input_shape)},
        LABELS: list(trainer.data.label_names),
        THRESHOLDS: thresholds,
    }
    tensors = {f"network.{k}": v for k, v in trainer.average.module.state_dict().items()}
    tensors |= {f"method.{k}": v for k, v in trainer.method.scoring_state().items()}

    def write(new: Path) -> None:
        new.mkdir(parents=True)
        for name, content in contents.items():
            (new / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, new / WEIGHTS)

    replace_folder(folder, write)


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a folder beside ``folder``, which then takes its place as a whole."""
    new, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    try:
        write(new)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def load_weights(folder: Path, trainer: Trainer) -> None:
    """Put saved weights and scoring state into a trainer of the same configuration."""
    tensors = load_file(folder / WEIGHTS)

    def part(prefix: str) -> dict[str, object]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    trainer.average.module.load_state_dict(part("network."))
    trainer.method.load_scoring_state(part("method."))  # type: ignore[arg-type]


def read_thresholds(folder: Path) -> list[float]:
    """Thresholds (K,) on logits that were kept with a model."""
    thresholds: list[float] = json.loads((folder / THRESHOLDS).read_text(encoding="utf-8"))
    return thresholds
