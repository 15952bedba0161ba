"""Use from Python and notebooks: the same studies, options and files as the command line.

from bbam_ray import tune_study, train, load_study, load_model
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbam_ray.commands import checks
from bbam_ray.commands.choices import TrialRunner, check_choice
from bbam_ray.results.loaded import Study, load_study

if TYPE_CHECKING:
    from bbam_ray.commands.study_progress import StudyListener
    from bbam_ray.engine.model import Model

__all__ = ["Study", "load_model", "load_study", "train", "tune_study"]
