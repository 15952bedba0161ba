"""Parts of the confirmation that need no running Ray."""

from __future__ import annotations

from pathlib import Path

from bbam_ray.results.store import StudyStore
from bbam_ray.scale.search.outcomes import parameters_of
from bbam_ray.scale.study.confirm import confirmation_seeds, stop_epoch, trial_thresholds


def test_thresholds_come_in_label_order_from_the_best_epoch(tmp_path: Path) -> None:
    store = StudyStore(tmp_path, {})
    identity = {"study": "s", "trial_id": "t", "number": 2}
    names = ("zebra", "ant", "fox")
    store.labels.put(
        identity | {"epoch": epoch, "label": name, "threshold": 10.0 * epoch + place}
        for epoch in (1, 2)
        for place, name in enumerate(names)
    )
    trial = {"number": 2, "best_epoch": 2}
    assert trial_thresholds(store, trial, names) == [20.0, 21.0, 22.0]


def test_confirmation_seeds_leave_out_the_seed_of_the_search() -> None:
    assert confirmation_seeds(7, 3) == [8, 9, 10]


def test_only_a_trial_that_ended_early_is_confirmed_to_its_best_epoch() -> None:
    settings = {"dataset": "digits", "method": "bbam", "epochs": 6, "warmup_epochs": 2}
    trial = {"param_scale": 10.0, "best_epoch": 3, "epochs": 6, "param_clamp": None}
    assert parameters_of(trial) == {"scale": 10.0}
    assert stop_epoch(settings, trial) is None
    assert stop_epoch(settings, {**trial, "epochs": 5}) == 3
