"""Use from Python and notebooks: the same studies, options and files as the command line.

from bbam_ray import compare, load_model, load_study, train, tune_study

Paths are strings or ``Path``; durations are seconds or times such as "30m"; workers are a number or a
range such as "2-8". A function per file; each turns its arguments into the options of a command in
``bbam_ray/commands``.
"""

from bbam_ray.api.comparing import compare
from bbam_ray.api.models import load_model
from bbam_ray.api.training import train
from bbam_ray.api.tuning import tune_study
from bbam_ray.results.loading import Study, load_study

__all__ = ["Study", "compare", "load_model", "load_study", "train", "tune_study"]
