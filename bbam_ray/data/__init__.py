"""Data sets, splits, views and the order of samples.

``DATASETS`` names all data sets; a new one is its file in ``datasets/`` and a line here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bbam_ray.registry import Registry

if TYPE_CHECKING:
    from bbam_ray.data.datasets.base import Dataset, Inputs, Samples, ViewSettings

DATASETS: Registry[Dataset] = Registry(
    {
        "digits": "bbam_ray.data.datasets.digits:Digits()",
        "awa": "bbam_ray.data.datasets.awa:Awa()",
        "voc2012": "bbam_ray.data.datasets.voc2012:Voc2012()",
        "coco2014": "bbam_ray.data.datasets.coco2014:Coco2014()",
        "images": "bbam_ray.data.datasets.images:Images()",
        "features": "bbam_ray.data.datasets.features:Features()",
        "ohsumed": "bbam_ray.data.datasets.ohsumed:Ohsumed()",
        "aapd": "bbam_ray.data.datasets.aapd:Aapd()",
        "text": "bbam_ray.data.datasets.text:Text()",
    }
)

__all__ = ["DATASETS", "Dataset", "Inputs", "Samples", "ViewSettings"]


def __getattr__(name: str) -> Any:
    """The types of ``datasets/base.py``, imported when they are used."""
    if name in __all__:
        return getattr(import_module("bbam_ray.data.datasets.base"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
