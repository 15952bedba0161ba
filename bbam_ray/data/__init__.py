"""Data sets, splits, views and the order of samples. Adding a data set: its file and a line here."""

from bbam_ray.data.awa import Awa
from bbam_ray.data.dataset import Dataset, Samples, ViewSettings
from bbam_ray.data.digits import Digits

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (Digits(), Awa())}

__all__ = ["DATASETS", "Dataset", "Samples", "ViewSettings"]
