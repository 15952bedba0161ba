"""Which earlier trials are reused, and the notice that none is. Ray is imported, not started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bbam_ray.results.schemas import COMPLETE
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import StudyRecord
from bbam_ray.scale.search.pareto import ParetoSet
from bbam_ray.scale.search.space_file import read_space
from bbam_ray.scale.study.trial_cache import TrialCache
from bbam_ray.scale.workers.shapes import GangShape

ROOT = Path(__file__).parents[2]
SETTINGS = {"dataset": "digits", "method": "bbam", "seed": 0, "device": "cpu"}


@pytest.fixture
def plan() -> Any:
    space = read_space(ROOT / "search_spaces" / "digits.yaml", "digits", "bbam", {})
    return SimpleNamespace(
        space=space,
        settings=SETTINGS,
        reuse=True,
        train_shape=None,
        shape=GangShape(1, 1, 0.0, 60.0),
    )


def earlier_study(folder: Path, plan: Any, fingerprint: str | None, **settings: Any) -> None:
    """A study with one complete trial, that of the published configuration."""
    StudyRecord.create(folder, {"settings": {**SETTINGS, **settings}})
    store = StudyStore(folder, plan.space.kinds)
    parameters = {f"param_{name}": value for name, value in plan.space.published.items()}
    row = {"study": folder.name, "trial_id": "t00000", "number": 0, "state": COMPLETE}
    store.trials.put([row | parameters | {"fingerprint": fingerprint}])
    store.flush()


def cache(folder: Path, plan: Any) -> TrialCache:
    store = StudyStore(folder / "new", plan.space.kinds)
    return TrialCache(plan, store, ParetoSet(store, plan.space))


def test_a_study_under_other_conditions_is_named(plan: Any, tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", plan, "0" * 32)
    assert cache(tmp_path, plan).outdated_study() == "old"


def test_a_study_that_can_be_reused_is_not(plan: Any, tmp_path: Path) -> None:
    fingerprint = cache(tmp_path, plan).fingerprint(plan.space.published)
    earlier_study(tmp_path / "old", plan, fingerprint)
    earlier_study(tmp_path / "older", plan, "0" * 32)
    assert cache(tmp_path, plan).outdated_study() is None


@pytest.mark.parametrize("settings", [{"seed": 1}, {"epochs": 3}])
def test_a_study_with_other_settings_is_not(
    plan: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    earlier_study(tmp_path / "old", plan, "0" * 32, **settings)
    assert cache(tmp_path, plan).outdated_study() is None


def test_no_study_is_named_if_nothing_is_to_be_reused(plan: Any, tmp_path: Path) -> None:
    earlier_study(tmp_path / "old", plan, "0" * 32)
    plan.reuse = False
    assert cache(tmp_path, plan).outdated_study() is None
