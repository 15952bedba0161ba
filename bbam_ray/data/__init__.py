"""Data sets, splits, views and the order of samples. Adding a data set: its file and a line here."""

from bbam_ray.data.datasets.aapd import Aapd
from bbam_ray.data.datasets.awa import Awa
from bbam_ray.data.datasets.base import Dataset, Inputs, Samples, ViewSettings
from bbam_ray.data.datasets.coco2014 import Coco2014
from bbam_ray.data.datasets.digits import Digits
from bbam_ray.data.datasets.features import Features
from bbam_ray.data.datasets.images import Images
from bbam_ray.data.datasets.ohsumed import Ohsumed
from bbam_ray.data.datasets.text import Text
from bbam_ray.data.datasets.voc2012 import Voc2012

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        *(Digits(), Awa(), Voc2012(), Coco2014(), Images(), Features()),
        *(Ohsumed(), Aapd(), Text()),
    )
}

__all__ = ["DATASETS", "Dataset", "Inputs", "Samples", "ViewSettings"]
