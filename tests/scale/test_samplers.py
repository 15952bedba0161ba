"""The names of samplers and schedulers: registered once, cheap to read, and strict."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import pytest

from bbam_ray.errors import UsageError
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.samplers import SAMPLERS, find_sampler
from bbam_ray.scale.search.schedulers import SCHEDULERS, find_scheduler
from bbam_ray.scale.search.sequence import ConfigSequence
from bbam_ray.scale.search.space_file import read_space

ROOT = Path(__file__).parents[2]


def test_the_contract_names_are_registered() -> None:
    assert {"tpe", "gp", "qmc", "random"} <= set(SAMPLERS)
    assert {"none", "asha", "hyperband", "median", "pbt"} <= set(SCHEDULERS)
    assert all(entry.summary for entry in [*SAMPLERS.values(), *SCHEDULERS.values()])


def test_an_enum_for_a_command_line_follows_from_the_names() -> None:
    names = StrEnum("Names", {name: name for name in SAMPLERS})
    assert [name.value for name in names] == list(SAMPLERS) and names["tpe"] == "tpe"


@pytest.mark.parametrize("module", ["samplers", "schedulers"])
def test_the_names_load_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, bbam_ray.scale.search.{module}\n"
        "heavy = {'optuna', 'ray', 'torch', 'numpy', 'pyarrow', 'pydantic', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() == "[]"


def test_an_unknown_sampler_is_an_error_and_not_tpe() -> None:
    space = read_space(ROOT / "search_spaces" / "digits.yaml", "digits", "bbam", {})
    with pytest.raises(UsageError, match="sampler 'tpee' is unknown; did you mean 'tpe'"):
        ConfigSequence(space, 0, 1, sampler="tpee")
    with pytest.raises(UsageError, match=r"known: .*gp.* tpe"):
        find_sampler("?")


def test_unknown_and_refused_schedulers_are_errors() -> None:
    with pytest.raises(UsageError, match="scheduler 'asah' is unknown; did you mean 'asha'"):
        Stopping("asah", 1, 0, 2, 3, "val_map", "max")
    with pytest.raises(UsageError, match="--scheduler pbt: population-based training"):
        find_scheduler("pbt")


def test_when_trials_are_pruned_is_described() -> None:
    def when(scheduler: str) -> str:
        return Stopping(scheduler, 3, 2, 8, 2, "val_map", "max").when

    assert when("none") == ""
    assert when("asha") == when("hyperband")
    assert when("asha") == "decides after epochs 3, 4, 6; one trial in 2 continues"
    assert when("median") == "from epoch 3 on"
