"""Data sets, splits, views and the order of samples. Adding a data set: its file and a line here."""

from bbam_ray.data.aapd import Aapd
from bbam_ray.data.awa import Awa
from bbam_ray.data.coco import Coco2014
from bbam_ray.data.dataset import Dataset, Inputs, Samples, ViewSettings
from bbam_ray.data.digits import Digits
from bbam_ray.data.features import Features
from bbam_ray.data.images import Images
from bbam_ray.data.ohsumed import Ohsumed
from bbam_ray.data.text import Text
from bbam_ray.data.voc import Voc2012

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        *(Digits(), Awa(), Voc2012(), Coco2014(), Images(), Features()),
        *(Ohsumed(), Aapd(), Text()),
    )
}

__all__ = ["DATASETS", "Dataset", "Inputs", "Samples", "ViewSettings"]
