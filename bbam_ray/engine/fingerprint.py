"""Fingerprints of runs: two runs with equal fingerprints give equal results."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import bbam_ray
from bbam_ray.config import RunConfig
from bbam_ray.data import DATASETS
from bbam_ray.data.formats.file_list import files_state
from bbam_ray.pretrained_images import is_timm, weights_file

# The code that decides the results of a run. Other folders only choose what is run, and where.
_CODE = ("config.py", "distributed.py", "core", "data", "models", "methods", "engine")
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow")


@cache
def code_state() -> str:
    """Hash of this package's training code and of the versions of the libraries that it computes with."""
    digest = _source()
    for package in PACKAGES:
        digest.update(f"{package} {version(package)}\n".encode())
    return str(digest.hexdigest())


def source_digest() -> str:
    """Hash of this package's training code, 64 hexadecimal digits."""
    return str(_source().hexdigest())


def _source() -> Any:
    root, digest = Path(bbam_ray.__file__).parent, hashlib.sha256()
    for name in _CODE:
        source = root / name
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest


def data_state(config: RunConfig) -> str:
    """A text that changes with the data of a run, its initial weights, and timm where it is used."""
    common, weights = config.training, Path(config.training.weights)
    state = DATASETS[common.dataset].state(config.data, common.data_dir)
    if is_timm(common.backbone):
        file = weights_file(common.backbone, common.weights)
        return f"{state} {files_state([file] if file else [])} timm {version('timm')}"
    return f"{state} {files_state([weights])}" if weights.is_file() else state


def run_fingerprint(config: RunConfig, data: str, resources: dict[str, Any]) -> str:
    """Fingerprint of configuration, seed, code and data of a run: 32 hexadecimal digits.

    Args:
        config: of the run.
        data: ``data_state`` of its data.
        resources: number of workers and threads, on which rounding depends.
    """
    common = config.training
    settings = {name: value for name, value in config.flat().items() if name != "data_dir"}
    on_gpu = common.device != "cpu" and torch.cuda.is_available()
    content = {
        "settings": settings,
        "code": code_state(),
        "data": data,
        "resources": resources,
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
