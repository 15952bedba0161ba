"""Hyper-parameter search and scaling for semi-supervised multi-label learning with S2ML2-BBAM."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bbam_ray.api import Study, compare, load_model, load_study, train, tune_study

# Read when Arrow is loaded. Its own allocator keeps memory that was freed, and a search that writes its
# tables for hours would grow with every trial.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
__all__ = ["Study", "compare", "load_model", "load_study", "train", "tune_study"]


def __getattr__(name: str) -> Any:
    """The Python interface, loaded at first use, so that parts of the library start fast."""
    if name in __all__:
        return getattr(import_module("bbam_ray.api"), name)
    raise AttributeError(f"module 'bbam_ray' has no attribute '{name}'")
