"""Names that options accept; loads nothing, so that a command line can list them."""

from __future__ import annotations

from enum import StrEnum

from bbam_ray.errors import UsageError, nearest

SAMPLERS = ("tpe", "gp", "qmc", "random")
SCHEDULERS = ("none", "asha", "hyperband", "median", "pbt")


class TrialRunner(StrEnum):
    """How the trials of a search are trained."""

    auto = "auto"
    gang = "gang"
    train = "train"


def check_choice(option: str, value: str, names: tuple[str, ...]) -> str:
    """The value, if it is one of the names.

    Raises:
        UsageError: it is not.
    """
    if value not in names:
        raise UsageError(f"{option} = {value!r} is not possible; {nearest(value, names)}")
    return value
