"""Which trials of an old study a new one may know: those that it would have run the same way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from bbam_ray.documents import write_json
from bbam_ray.errors import UsageError
from bbam_ray.results.store import StudyStore
from bbam_ray.scale.search.space import Space
from bbam_ray.scale.search.space_file import read_space
from bbam_ray.scale.search.warm_start import prior_outcomes, restored_outcomes

BASE = {"dataset": "digits", "method": "bbam", "seed": 3}
OLD = {
    "margin": ("float", [0.2, 0.3, 0.6, 0.4]),
    "negative_ratio": ("float", [5.0, math.inf, 5.0, 20.0]),
    "balance": ("bool", [True, False, True, True]),
    "clamp": ("bool", [True, None, False, False]),
    "ema_decay": ("float", [0.99, 0.99, 0.99, 0.98]),
}
STATES = ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]


@pytest.fixture()
def old(tmp_path: Path) -> Path:
    """A study of four trials that searched five settings, with seed 3 and weight_decay 0.01."""
    folder = tmp_path / "old"
    folder.mkdir()
    settings = {**BASE, "weight_decay": 0.01}
    write_json(folder / "study.json", {"schema_version": 1, "settings": settings})
    store = StudyStore(folder, {name: kind for name, (kind, _) in OLD.items()})
    for number, state in enumerate(STATES):
        identity = {"study": "old", "trial_id": f"t{number:05d}", "number": number}
        values = {f"param_{name}": values[number] for name, (_, values) in OLD.items()}
        store.trials.put([identity | values | {"state": state, "val_map": 0.1 * number}])
        store.history.put([identity | {"epoch": e, "val_map": 0.01 * e} for e in (1, 2)])
    store.flush()
    return folder


def space(folder: Path, **fixed: Any) -> Space:
    """Margin up to 0.5, negative_ratio, balance and clamp; ema_decay is no longer searched."""
    content = {
        "parameters": {
            "margin": {"type": "float", "low": 0.1, "high": 0.5},
            "negative_ratio": {"type": "categorical", "choices": [5, 20, math.inf]},
            "balance": {"type": "categorical", "choices": [True, False]},
            "clamp": {"type": "categorical", "choices": [True, False], "when": {"balance": True}},
        },
        "published": {"margin": 0.4, "negative_ratio": 5, "balance": True, "clamp": False},
        "fixed": {"weight_decay": 0.01, **fixed},
    }
    (folder / "new.yaml").write_text(yaml.safe_dump(content))
    return read_space(folder / "new.yaml", "digits", "bbam", BASE)


def known(old: Path, new: Space, **settings: Any) -> list[tuple[int, dict[str, Any]]]:
    found = prior_outcomes(old, new, {**new.fixed, **BASE, **settings})
    return [(outcome.number, outcome.parameters) for outcome in found]


def test_trials_in_the_new_ranges_with_the_new_fixed_values_count(old: Path) -> None:
    assert known(old, space(old)) == [
        (-2, {"margin": 0.2, "negative_ratio": 5.0, "balance": True, "clamp": True}),
        (-1, {"margin": 0.3, "negative_ratio": math.inf, "balance": False}),
    ]  # the third has a margin above the range, the fourth another ema_decay


def test_states_values_and_courses_come_along(old: Path) -> None:
    new = space(old)
    first, second = prior_outcomes(old, new, {**new.fixed, **BASE})
    assert (first.state, second.state) == ("COMPLETE", "PRUNED")
    assert (first.values, second.values) == ((0.0,), (0.1,))
    assert first.by_epoch == {1: 0.01, 2: 0.02}


@pytest.mark.parametrize(
    "changes", [{"seed": 4}, {"labeled_fraction": 0.1}, {"weight_decay": 0.02}, {"scale": 10}]
)
def test_nothing_counts_that_was_trained_otherwise(changes: dict[str, Any], old: Path) -> None:
    with pytest.raises(UsageError, match=r"none of its 4 trials .* must be the same"):
        known(old, space(old), **changes)


def test_a_setting_that_is_fixed_now_counts_where_it_had_that_value(old: Path) -> None:
    assert [number for number, _ in known(old, space(old, ema_decay=0.98))] == [-1]


def test_what_study_json_keeps_comes_back_the_same(old: Path) -> None:
    import json
    from dataclasses import asdict

    new = space(old)
    found = prior_outcomes(old, new, {**new.fixed, **BASE})
    write_json(old / "kept.json", {"prior": [asdict(outcome) for outcome in found]})
    kept = json.loads((old / "kept.json").read_text())["prior"]
    assert restored_outcomes(kept) == found


def test_no_study_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a study"):
        prior_outcomes(tmp_path, space(tmp_path), {})
