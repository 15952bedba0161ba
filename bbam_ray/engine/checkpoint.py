"""Checkpoint files: the state from which a run resumes as if it had never stopped."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from bbam_ray.errors import UsageError, brief
from bbam_ray.files import atomic_file, check_regular

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state (tensors and plain values) atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # By way of memory: torch turns a full disk into a RuntimeError that says nothing.
    content = io.BytesIO()
    torch.save({"format": FORMAT, "state": state}, content)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a state to the CPU; executes no code from the file.

    Raises:
        UsageError: the file is damaged or of another format.
    """
    check_regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles, which it then rejects
            stored = torch.load(path, map_location="cpu", weights_only=True)
        version, state = stored["format"], stored["state"]
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        ArithmeticError,
        MemoryError,
        struct.error,
        UnpicklingError,
    ) as error:
        reason = brief(error, 200)
        if isinstance(error, UnpicklingError):
            reason = "it contains something other than tensors and plain values"
        raise UsageError(
            f"{path}: not a readable checkpoint ({reason}); move it away to train from the start"
        ) from None
    if version != FORMAT or not isinstance(state, dict):
        raise UsageError(
            f"{path}: checkpoint format {brief(version)}, expected {FORMAT}; continue it with the version "
            "of bbam-ray that wrote it"
        )
    result: dict[str, Any] = state
    return result
