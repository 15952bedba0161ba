"""``reshuffle``: every configuration holds out other samples of the same labelled pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bbam_ray.config import RunConfig
from bbam_ray.data.sampling.splits import Split
from bbam_ray.engine.split_file import NamedSplit
from bbam_ray.engine.task import check_task, load_part, split_of
from bbam_ray.errors import UsageError


@pytest.fixture
def split(tiny_config: Callable[..., RunConfig]) -> Callable[..., Split]:
    samples = load_part(tiny_config(), "train")
    return lambda **settings: split_of(samples, tiny_config(**settings))


def same(a: Split, b: Split) -> bool:
    return np.array_equal(a.validation, b.validation) and np.array_equal(a.labeled, b.labeled)


def test_configurations_share_the_pool_but_not_the_validation_samples(
    split: Callable[..., Split],
) -> None:
    plain = split()
    splits = [split(reshuffle=True, margin=margin) for margin in (0.1, 0.2, 0.3, 0.4)]
    for each in splits:
        assert np.array_equal(each.pool, plain.pool)
        assert len(each.validation) == len(plain.validation)
        assert not set(each.labeled) & set(each.validation)
    assert len({tuple(each.validation) for each in splits}) == len(splits)


def test_without_it_the_configuration_does_not_matter(split: Callable[..., Split]) -> None:
    assert same(split(margin=0.1), split(margin=0.4))


@pytest.mark.parametrize(
    "change", [{"seed": 7}, {"stop_epoch": 3}, {"patience": 2}], ids=lambda c: next(iter(c))
)
def test_a_configuration_keeps_its_validation_samples(
    split: Callable[..., Split], change: dict[str, Any]
) -> None:
    settings = {"reshuffle": True, "split_seed": 5, "margin": 0.3}
    assert same(split(**settings), split(**settings, **change))


def test_folds_are_refused_with_the_way_out(tiny_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(UsageError, match=r"reshuffle = true needs one validation set.*--folds 1"):
        tiny_config(reshuffle=True, folds=3)


def test_the_split_of_a_study_names_no_validation_samples(
    tiny_config: Callable[..., RunConfig],
) -> None:
    task = check_task(tiny_config())
    table = NamedSplit.of_study(task, {"reshuffle": True}).table()
    parts = table["part"].to_pylist()
    assert parts.count("labeled") == len(task.split.pool) and "validation" not in parts
    assert NamedSplit.of_study(task, {}).table() == NamedSplit.of(task).table()
