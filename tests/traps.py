"""Pickles that create a file when they are loaded, for tests that no code loads them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: names of files that some libraries unpickle
LOADERS = "pytorch_model.bin", "training_args.bin", "model.pkl", "state.pt", "optimizer.pt"
KINDS = "pickle", "old pickle", "torch", "old torch", "npy", "npz"


class Trap:
    """Unpickling it creates the file ``sprung``."""

    def __init__(self, sprung: Path) -> None:
        self._sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._sprung,)


def hostile(kind: str, sprung: Path) -> bytes:
    """A trap in a format that some library unpickles.

    Args:
        kind: one of ``KINDS``.
        sprung: path of the file that loading the trap creates.
    """
    trap, file = Trap(sprung), io.BytesIO()
    if "pickle" in kind:
        return pickle.dumps(trap, protocol=0 if "old" in kind else 5)
    if "torch" in kind:
        state = {"format": 1, "state": trap, "conv1.weight": trap}
        torch.save(state, file, _use_new_zipfile_serialization="old" not in kind)
    else:
        array = np.array([trap], dtype=object)
        names = ("features", "labels", "images", "files", "names", "label_names")
        if kind == "npy":
            np.save(file, array, allow_pickle=True)
        else:
            np.savez(file, **dict.fromkeys(names, array))
    return file.getvalue()
