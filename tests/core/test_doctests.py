"""The examples in the docstrings of core/ run and print what they claim."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import bbam_ray.core

MODULES = [
    importlib.import_module(f"bbam_ray.core.{module.name}")
    for module in pkgutil.iter_modules(bbam_ray.core.__path__)
]
WITH_EXAMPLES = {
    "angles",
    "calibration",
    "ema",
    "ensembles",
    "held_out_thresholds",
    "losses",
    "metrics",
    "negatives",
    "pseudo_label_weights",
    "prototypes",
    "pseudo_labels",
    "selection",
    "statistics",
    "thresholds",
}


def name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_every_example_prints_what_it_claims(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.failed == 0
    assert (result.attempted > 0) == (name(module) in WITH_EXAMPLES)


def test_there_are_enough_examples() -> None:
    """Guards against a finder that silently finds nothing."""
    tests = [test for module in MODULES for test in doctest.DocTestFinder().find(module)]
    assert sum(len(test.examples) for test in tests) >= 40


def test_a_wrong_example_fails() -> None:
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    assert runner.run(example, out=lambda text: None).failed == 1
