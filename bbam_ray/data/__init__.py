"""Data sets, and everything between their files and a minibatch.

``DATASETS`` names all data sets. To add one, add its file in ``datasets/``, a line here and a search space
``search_spaces/NAME.yaml``; help texts, errors and ``bbam-ray data download`` follow from these.
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
        "voc": "bbam_ray.data.datasets.voc:Voc()",
        "coco": "bbam_ray.data.datasets.coco:Coco()",
        "images": "bbam_ray.data.datasets.images:Images()",
        "features": "bbam_ray.data.datasets.features:Features()",
        "ohsumed": "bbam_ray.data.datasets.ohsumed:Ohsumed()",
        "aapd": "bbam_ray.data.datasets.aapd:Aapd()",
        "text": "bbam_ray.data.datasets.text:Text()",
    }
)

__all__ = ["DATASETS", "Dataset", "Inputs", "Samples", "ViewSettings"]


def __getattr__(name: str) -> Any:
    """The types of ``datasets/base.py``, imported on first use."""
    if name in __all__:
        return getattr(import_module("bbam_ray.data.datasets.base"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
