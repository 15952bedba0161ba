"""The Pareto set as trials end is that of all trials, and the store is marked accordingly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbam_ray.results.schemas import COMPLETE, FAILED, PRUNED
from bbam_ray.results.store import StudyStore
from bbam_ray.scale.search.pareto import ParetoSet, pareto

TWO: Any = SimpleNamespace(objectives=(("val_map", "max"), ("seconds_per_epoch", "min")))
ONE: Any = SimpleNamespace(objectives=(("val_map", "max"),))


def row(
    number: int, quality: float | None, seconds: float, state: str = COMPLETE
) -> dict[str, Any]:
    identity = {"study": "s", "trial_id": f"t{number:05d}", "number": number, "state": state}
    return identity | {"val_map": quality, "seconds_per_epoch": seconds}


_values = st.sampled_from([0.1, 0.2, 0.3, 0.4])  # with ties
_trials = st.tuples(
    st.one_of(_values, st.none()), _values, st.sampled_from([COMPLETE, COMPLETE, PRUNED, FAILED])
)


@settings(max_examples=60, deadline=None)
@given(trials=st.lists(_trials, max_size=12), resumed=st.integers(0, 12))
def test_it_is_that_of_all_trials_after_each(
    trials: list[tuple[float | None, float, str]],
    resumed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("pareto")
    store = StudyStore(folder, {})
    members = ParetoSet(store, TWO)
    rows = [row(number, *values) for number, values in enumerate(trials)]
    for number, ended in enumerate(rows):
        if number == resumed:
            store.flush()
            store = StudyStore(folder, {})
            members = ParetoSet(store, TWO)
        store.end_trial(members.add(ended))
        expected = pareto(rows[: number + 1], TWO)
        marks = {each["number"]: each["pareto"] for each in store.trials.rows()}
        assert marks == {n: n in expected for n in range(number + 1)}


def test_one_objective_has_no_marks(tmp_path: Path) -> None:
    store = StudyStore(tmp_path, {})
    members = ParetoSet(store, ONE)
    store.end_trial(members.add(row(0, 0.5, 1.0)))
    assert store.trials.rows()[0]["pareto"] is None


def test_a_trial_is_compared_with_the_members_only(tmp_path: Path, monkeypatch: Any) -> None:
    """Their rows are read when they leave the set, and no others."""
    store = StudyStore(tmp_path, {})
    members = ParetoSet(store, TWO)
    for number in range(20):
        store.end_trial(members.add(row(number, 0.1, 9.0 + number)))
    store.flush()
    read: list[int] = []
    rows_of = store.trials.rows_of
    monkeypatch.setattr(store.trials, "rows_of", lambda n: (read.append(n), rows_of(n))[1])
    store.end_trial(members.add(row(20, 0.05, 10.0)))
    assert read == []
    store.end_trial(members.add(row(21, 0.2, 8.0)))
    assert read == [0]
