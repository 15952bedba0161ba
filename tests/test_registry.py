"""The registry: names without imports, entries on demand, no name twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bbam_ray.data import DATASETS
from bbam_ray.methods import METHODS
from bbam_ray.registry import Registry


def test_an_entry_is_imported_once_and_called_if_it_says_so() -> None:
    registry: Registry[object] = Registry(
        {"counter": "collections:Counter()", "kind": "collections:Counter"}
    )
    assert registry["counter"] == {} and registry["counter"] is registry["counter"]
    assert isinstance(registry["counter"], registry["kind"])  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        registry["other"]


def test_a_name_is_taken_once() -> None:
    registry: Registry[object] = Registry({"a": "collections:Counter"})
    registry.add("b", dict)
    assert list(registry) == ["a", "b"] and registry["b"] is dict
    for name in ("a", "b"):
        with pytest.raises(ValueError, match="registered already"):
            registry.add(name, list)


def test_every_entry_has_the_name_it_is_registered_by() -> None:
    assert all(dataset.name == name for name, dataset in DATASETS.items())
    assert all(method.name == name for name, method in METHODS.items())


def test_names_import_no_torch() -> None:
    code = (
        "import sys; from bbam_ray.data import DATASETS; from bbam_ray.methods import METHODS\n"
        "print(len(list(DATASETS)) and len(list(METHODS)) and 'torch' not in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
