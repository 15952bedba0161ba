"""Names of options and of the values that they accept; loads no library."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import ParamSpec, TypeVar

from bbam_ray.errors import UsageError, nearest
from bbam_ray.scale.search.samplers import SAMPLERS as SAMPLERS
from bbam_ray.scale.search.schedulers import SCHEDULERS as SCHEDULERS
from bbam_ray.scale.study.final_kinds import Final as Final
from bbam_ray.scale.study.final_kinds import Pools as Pools

P = ParamSpec("P")
R = TypeVar("R")


class TrialRunner(StrEnum):
    """How the trials of a search are trained."""

    auto = "auto"
    gang = "gang"
    train = "train"


def check_choice(option: str, value: str, names: Iterable[str]) -> str:
    """The value, if it is one of the names.

    Raises:
        UsageError: it is not.
    """
    if value not in names:
        raise UsageError(f"{option} = {value!r} is invalid; {nearest(value, names)}")
    return value


def names_unknown_options(function: Callable[P, R]) -> Callable[P, R]:
    """A function that reports an unknown option as a UsageError with the nearest name."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                hint = nearest(name, known)
                raise UsageError(f"{function.__name__}: unknown option '{name}'; {hint}")
        return function(*args, **options)

    return call
