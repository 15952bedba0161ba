"""Parts of the confirmation that need no running Ray."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bbam_ray.results.fold_rows import stored_phase
from bbam_ray.scale.search.outcomes import parameters_of
from bbam_ray.scale.study.bags import stop_epoch
from bbam_ray.scale.study.confirm import confirmation_seeds

SETTINGS = {"dataset": "digits", "method": "bbam", "epochs": 6, "warmup_epochs": 2}


@dataclass
class Seeds:
    """What ``confirmation_seeds`` reads of a plan."""

    same_pool: bool
    confirm_seeds: int = 3

    @property
    def settings(self) -> dict[str, int]:
        return {"seed": 7}


def test_the_first_seed_is_that_of_the_search_unless_seeds_draw_their_own_samples() -> None:
    assert confirmation_seeds(Seeds(same_pool=True)) == [7, 8, 9]  # type: ignore[arg-type]
    assert confirmation_seeds(Seeds(same_pool=False)) == [8, 9, 10]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kept", "epochs", "expected"),
    [
        ("last", 6, None),
        ("last", 5, None),  # the main phase ended early, but its weights were kept
        ("warmup: the main phase lowered val_map from 0.600 to 0.500", 6, 2),
        ("best", 6, None),  # the highest value of a noisy curve does not shorten the schedule
        ("best", 5, 3),  # patience ended it
        (None, 6, None),  # of an older version
    ],
)
def test_training_ends_where_the_kept_weights_were(
    kept: str | None, epochs: int, expected: int | None
) -> None:
    trial = {
        "param_scale": 10.0,
        "best_epoch": 3,
        "epochs": epochs,
        "param_clamp": None,
        "kept": kept,
    }
    assert parameters_of(trial) == {"scale": 10.0}
    assert stop_epoch(SETTINGS, trial) == expected
    assert stored_phase(trial) == (kept or "last").partition(":")[0]
