"""Tiny runs in this process and on gloo groups of 2 and 3 ranks, which also resume from the
checkpoints that the group of 2 writes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "scenes": 240,
    "test_scenes": 40,
    "labeled_fraction": 0.4,
    "epochs": 5,
    "warmup_epochs": 2,
    "warmup_passes": 2,
    "unlabeled_weight": 1.0,
    "hidden_dim": 32,
    "feature_dim": 16,
    "device": "cpu",
}
SUPERVISED = {
    **{name: value for name, value in SETTINGS.items() if name != "unlabeled_weight"},
    "method": "supervised",
    "epochs": 2,
}
# Labelled batches of two: often one rank owns both, and the other has none in that step.
SPARSE = {**SETTINGS, "scenes": 120, "epochs": 4, "labeled_batch": 2, "unlabeled_batch": 6}
Group = Callable[[Path, int, Path], list[Any]]


@pytest.fixture(scope="session")
def rank_settings() -> dict[str, Any]:
    """Settings of the runs that the groups train."""
    return SETTINGS


@pytest.fixture(scope="session")
def rank_worker(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The worker script as a module, to run the same code in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        path = Path(__file__).with_name("rank_worker.py")
        spec = importlib.util.spec_from_file_location("rank_worker", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def one(rank_worker: ModuleType, rank_settings: dict[str, Any]) -> dict[str, Any]:
    """The results of one process."""
    return {
        "run": rank_worker.train(rank_worker.make_trainer(rank_settings)),
        "supervised": rank_worker.train(rank_worker.make_trainer(SUPERVISED)),
        "sparse": rank_worker.train(rank_worker.make_trainer(SPARSE)),
    }


def _start(group: Group, world_size: int, folder: Path, checkpoints: Path, **job: Any) -> list[Any]:
    content = {"settings": SETTINGS, "supervised": SUPERVISED, "sparse": SPARSE}
    content["checkpoints"] = str(checkpoints)
    (folder / "settings.json").write_text(json.dumps(content | job), encoding="utf-8")
    return group(Path(__file__).with_name("rank_worker.py"), world_size, folder)


@pytest.fixture(scope="session")
def checkpoints_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of every epoch of the group of 2; filled by ``two``."""
    return tmp_path_factory.mktemp("checkpoints-of-two")


@pytest.fixture(scope="session")
def two(
    gloo_group: Group, checkpoints_of_two: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """The results of each of 2 ranks."""
    folder = tmp_path_factory.mktemp("two")
    return _start(gloo_group, 2, folder, checkpoints_of_two, write=True, resume=[1, 3])


@pytest.fixture(scope="session")
def three(
    gloo_group: Group,
    checkpoints_of_two: Path,
    two: list[Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Any]:
    """The results of each of 3 ranks, which resume from checkpoints of 2."""
    folder = tmp_path_factory.mktemp("three")
    return _start(gloo_group, 3, folder, checkpoints_of_two, write=False, resume=[1, 3])


@pytest.fixture(params=["two", "three"])
def group(request: pytest.FixtureRequest) -> list[Any]:
    """The group of 2, then that of 3."""
    ranks: list[Any] = request.getfixturevalue(request.param)
    return ranks
