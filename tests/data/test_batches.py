"""The order of samples: complete passes, near-equal batches, and noise that belongs to a place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbam_ray.data.sampling.batches import (
    AugmentationNoise,
    cycled_batches,
    epoch_batches,
    epoch_rng,
    repeated_batches,
)

COUNTS = {"count": st.integers(1, 60), "batch": st.integers(1, 70), "seed": st.integers(0, 99)}


@settings(max_examples=60, deadline=None)
@given(**COUNTS, passes=st.integers(1, 4))
def test_every_pass_visits_each_position_once_in_near_equal_batches(
    count: int, batch: int, seed: int, passes: int
) -> None:
    batches = epoch_batches(count, batch, passes, epoch_rng(seed, 0, 0))
    steps = -(-count // batch)
    assert len(batches) == passes * steps
    for start in range(0, len(batches), steps):
        visited = np.concatenate(batches[start : start + steps])
        assert sorted(visited.tolist()) == list(range(count))
    sizes = [len(part) for part in batches]
    assert max(sizes) <= batch and max(sizes) - min(sizes) <= 1


@settings(max_examples=60, deadline=None)
@given(**COUNTS, steps=st.integers(1, 30))
def test_cycled_batches_have_exactly_the_steps_and_size_asked_for(
    count: int, batch: int, seed: int, steps: int
) -> None:
    batches = cycled_batches(count, batch, steps, epoch_rng(seed, 0, 0))
    size = min(batch, count)
    assert [len(part) for part in batches] == [size] * steps
    order = np.concatenate(batches)
    for start in range(0, len(order), count):
        visited = order[start : start + count]
        assert len(set(visited.tolist())) == len(visited)  # pass after pass
    times = np.bincount(order, minlength=count)
    assert times.max() - times.min() <= 1


@settings(max_examples=60, deadline=None)
@given(**COUNTS, steps=st.integers(1, 30))
def test_repeated_batches_are_those_of_one_pass(
    count: int, batch: int, seed: int, steps: int
) -> None:
    batches = repeated_batches(count, batch, steps, epoch_rng(seed, 0, 0))
    once = epoch_batches(count, batch, 1, epoch_rng(seed, 0, 0))
    assert len(batches) == steps
    for number, part in enumerate(batches):
        assert np.array_equal(part, once[number % len(once)])


@pytest.mark.parametrize("make", [epoch_batches, cycled_batches])
def test_order_is_a_function_of_seed_epoch_and_purpose(make: object) -> None:
    assert callable(make)

    def order(*key: int) -> list[int]:
        return np.concatenate(make(40, 8, 2, epoch_rng(*key))).tolist()

    assert order(1, 2, 3) == order(1, 2, 3)
    others = [order(0, 2, 3), order(1, 0, 3), order(1, 2, 0), order(2, 1, 3)]
    assert all(other != order(1, 2, 3) for other in others)
    whole = epoch_batches(40, 8, 2, epoch_rng(1, 2, 3))
    assert np.concatenate(whole[:5]).tolist() != np.concatenate(whole[5:]).tolist()


@pytest.mark.parametrize("cuts", [(3, 5), (1,) * 8, (8, 0)])
@pytest.mark.parametrize("width", [1, 12])
def test_chance_does_not_depend_on_how_it_is_drawn(cuts: tuple[int, ...], width: int) -> None:
    noise = AugmentationNoise(0, 1, 2, width)
    parts = torch.cat([noise.draw(count) for count in cuts])
    assert torch.equal(parts, AugmentationNoise(0, 1, 2, width).draw(8))
    assert parts.shape == (8, width) and parts.dtype == torch.float32


def test_chance_is_uniform_and_different_for_every_stream() -> None:
    numbers = AugmentationNoise(3, 4, 5, 12).draw(2000)
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
    torch.testing.assert_close(numbers.mean(0), torch.full((12,), 0.5), atol=0.03, rtol=0)
    for key in ((0, 4, 5), (3, 0, 5), (3, 4, 0), (4, 3, 5)):
        assert not torch.equal(AugmentationNoise(*key, 12).draw(3), numbers[:3])


def test_chance_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    AugmentationNoise(0, 0, 0, 12).draw(10)
    assert torch.equal(torch.rand(4), expected)
