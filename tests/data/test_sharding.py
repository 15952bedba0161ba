"""Who handles which sample: everything exactly once, and the work evenly divided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbam_ray.data.sampling.batches import cycled_batches, epoch_batches
from bbam_ray.data.sampling.sharding import even_part, fill_up, main_phase_shares, owned_rows

Plan = tuple[list[np.ndarray], list[np.ndarray], int, int]


def one_by_one(loads: list[int], items: int) -> list[int]:
    """Each item goes to the rank with the least, the first of several."""
    given_to = [0] * len(loads)
    for _ in range(items):
        totals = [a + b for a, b in zip(loads, given_to, strict=True)]
        given_to[totals.index(min(totals))] += 1
    return given_to


@settings(max_examples=300, deadline=None)
@given(loads=st.lists(st.integers(0, 30), min_size=1, max_size=9), items=st.integers(0, 120))
def test_filling_up_gives_each_item_to_who_has_least(loads: list[int], items: int) -> None:
    before = list(loads)
    found = fill_up(np.array(loads), items)
    assert found.tolist() == one_by_one(loads, items)
    assert int(found.sum()) == items
    assert loads == before


@settings(max_examples=200, deadline=None)
@given(loads=st.lists(st.integers(0, 10**6), min_size=1, max_size=64), items=st.integers(0, 10**7))
def test_filling_up_large_numbers_leaves_no_one_behind(loads: list[int], items: int) -> None:
    found = fill_up(np.array(loads), items)
    assert int(found.sum()) == items and int(found.min()) >= 0
    totals = np.array(loads) + found
    # Who got something has at most one more than anybody.
    assert found.max() == 0 or int(totals[found > 0].max()) <= int(totals.min()) + 1


@given(count=st.integers(0, 500), world_size=st.integers(1, 20))
def test_even_parts_follow_each_other_and_differ_by_at_most_one(
    count: int, world_size: int
) -> None:
    parts = [np.arange(count)[even_part(count, rank, world_size)] for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(count=st.integers(0, 500), world_size=st.integers(1, 20))
def test_every_row_has_one_owner(count: int, world_size: int) -> None:
    owned = [owned_rows(count, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(owned).tolist()) == list(range(count))
    assert all((np.diff(rows) > 0).all() for rows in owned)
    sizes = [len(rows) for rows in owned]
    assert max(sizes) - min(sizes) <= 1


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Batches of an epoch as training draws them, the number of labelled samples, and of ranks."""
    labeled, unlabeled = draw(st.integers(1, 60)), draw(st.integers(1, 150))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    batches = epoch_batches(unlabeled, draw(st.integers(1, 60)), 1, rng)
    cycled = cycled_batches(labeled, draw(st.integers(1, 40)), len(batches), rng)
    return cycled, batches, labeled, draw(st.integers(1, 8))


@settings(max_examples=200, deadline=None)
@given(plan=plans())
def test_an_epoch_is_divided_without_gap_or_overlap(plan: Plan) -> None:
    labeled, unlabeled, count, world_size = plan
    answers = [main_phase_shares(labeled, unlabeled, r, world_size) for r in range(world_size)]
    assert all(len(shares) == len(labeled) for shares, _ in answers)
    for step in range(len(labeled)):
        places = np.concatenate([shares[step].labeled for shares, _ in answers])
        assert sorted(places.tolist()) == list(range(len(labeled[step])))
        everything = np.arange(len(unlabeled[step]))
        parts = [everything[shares[step].unlabeled] for shares, _ in answers]
        assert np.concatenate(parts).tolist() == everything.tolist()
    owned = [rows for _, rows in answers]
    assert sorted(np.concatenate(owned).tolist()) == list(range(sum(map(len, unlabeled))))
    for rank, (shares, rows) in enumerate(answers):
        mine = set(owned_rows(count, rank, world_size).tolist())
        handled: list[int] = []
        for step, share in enumerate(shares):
            assert set(labeled[step][share.labeled].tolist()) <= mine
            handled += unlabeled[step][share.unlabeled].tolist()
        assert (np.diff(rows) > 0).all()
        assert sorted(handled) == rows.tolist()


@settings(max_examples=200, deadline=None)
@given(plan=plans())
def test_no_rank_has_more_to_do_than_the_labelled_samples_force(plan: Plan) -> None:
    labeled, unlabeled, _, world_size = plan
    answers = [main_phase_shares(labeled, unlabeled, r, world_size) for r in range(world_size)]
    for step in range(len(labeled)):
        known = [len(shares[step].labeled) for shares, _ in answers]
        others = [len(np.arange(10**4)[shares[step].unlabeled]) for shares, _ in answers]
        loads = [a + b for a, b in zip(known, others, strict=True)]
        fair = -(-sum(loads) // world_size)
        assert max(loads) == max(fair, *known)
        if max(known) <= sum(loads) // world_size:
            assert max(loads) - min(loads) <= 1


def test_one_rank_handles_everything_in_the_order_drawn() -> None:
    labeled, unlabeled = [np.array([4, 0, 2])], [np.array([5, 1, 0, 3, 2, 4])]
    (share,), rows = main_phase_shares(labeled, unlabeled, 0, 1)
    assert share.labeled.tolist() == [0, 1, 2] and share.unlabeled == slice(0, 6)
    assert rows.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("loads", "items", "expected"),
    [([0], 5, [5]), ([3, 0], 2, [0, 2]), ([3, 0], 4, [1, 3]), ([2, 2, 0], 3, [1, 0, 2])],
)
def test_filling_up_by_hand(loads: list[int], items: int, expected: list[int]) -> None:
    assert fill_up(np.array(loads), items).tolist() == expected
