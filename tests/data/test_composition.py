"""The batches of ``batch_composition``: published numbers, and what happens to other fractions."""

from __future__ import annotations

from typing import Any

import pytest

from bbam_ray.data import DATASETS
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config

FRACTIONS = (0.05, 0.1, 0.15, 0.2)
#: of the official implementation: data set, the setting of its 5 % batch, and the batch by fraction
PUBLISHED: list[tuple[str, dict[str, int], list[tuple[int, int]]]] = [
    ("voc2012", {}, [(2, 30), (4, 28), (8, 24), (16, 16)]),
    ("coco2014", {}, [(4, 60), (8, 56), (16, 48), (32, 32)]),
    ("awa", {}, [(32, 96)] * 4),
    *(
        (
            name,
            {"labeled_batch": 4, "unlabeled_batch": 60},
            [(4, 60), (8, 56), (12, 52), (16, 48)],
        )
        for name in ("ohsumed", "aapd")
    ),
]


def batch(**settings: Any) -> tuple[int, int]:
    common = run_config(settings, "test").training
    return common.labeled_batch, common.unlabeled_batch


@pytest.mark.parametrize(
    ("dataset", "sizes", "expected"), PUBLISHED, ids=lambda value: str(value)[:9]
)
def test_batches_are_the_published_ones(
    dataset: str, sizes: dict[str, int], expected: list[tuple[int, int]]
) -> None:
    for fraction, numbers in zip(FRACTIONS, expected, strict=True):
        settings = {"dataset": dataset, "labeled_fraction": fraction, **sizes}
        assert batch(**settings, batch_composition="fraction") == numbers
        plain = DATASETS[dataset].defaults | settings
        assert batch(**settings) == (plain["labeled_batch"], plain["unlabeled_batch"])


@pytest.mark.parametrize("dataset", list(DATASETS))
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_composed_batch_keeps_its_sum_and_builds_the_same_run_again(
    dataset: str, fraction: float
) -> None:
    given = {"dataset": dataset, "labeled_fraction": fraction, "batch_composition": "fraction"}
    config = run_config({**given, "labeled_batch": 5, "unlabeled_batch": 32}, "test")
    common = config.training
    assert common.labeled_batch + common.unlabeled_batch == 37
    assert common.labeled_batch >= 1 and common.unlabeled_batch >= 1
    assert run_config(config.flat(), "again").flat() == config.flat()


def test_sizes_that_are_set_are_the_sum_that_is_divided() -> None:
    composed = {"batch_composition": "fraction", "labeled_fraction": 0.1}
    assert batch(**composed) == (8, 56)  # 16 + 48 of digits
    assert batch(**composed, labeled_batch=80) == (16, 112)
    assert batch(**composed, labeled_batch=1, unlabeled_batch=1) == (1, 1)


@pytest.mark.parametrize("fraction", [0.07, 0.3, None])
def test_another_fraction_is_refused_with_the_way_out(fraction: float | None) -> None:
    with pytest.raises(UsageError) as caught:
        batch(batch_composition="fraction", labeled_fraction=fraction)
    message = str(caught.value)
    assert "test: batch_composition = fraction needs a labeled_fraction of 0.05, 0.1" in message
    assert f"not {'null' if fraction is None else fraction}" in message
    assert "batch_composition = fixed" in message
    assert batch(labeled_fraction=fraction) == (16, 48)
