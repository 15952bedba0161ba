"""Files of initial weights, read without executing code from them."""

from __future__ import annotations

import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from bbam_ray.errors import UsageError


def where_to_fetch(published: Any) -> str:
    """The way out if weights of torchvision are not on this machine: which file to put where.

    Args:
        published: a member of a torchvision enumeration of weights, such as ``ResNet50_Weights``.
    """
    name, folder = published.url.rpartition("/")[2], Path(torch.hub.get_dir()) / "checkpoints"
    return (
        f"download {published.url} on another machine, and give the path of {name} or put it into "
        f"{folder}"
    )


def state_of_file(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a file; executes no code from it.

    Args:
        path: a ``.safetensors`` file, or a state dict written by ``torch.save``.

    Raises:
        UsageError: the file contains something other than a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: dict[str, Tensor] = load_file(path)
            return state
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles, which it then rejects
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises many kinds of errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(
            error, UnpicklingError
        ):  # torch's message explains how to execute the file's code
            reason = "it contains something other than tensors"
        raise UsageError(
            f"weights = '{path}': cannot be read as a state dict ({reason}); give a file that "
            "contains only tensors"
        ) from None
    return state
