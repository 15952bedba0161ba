"""Reading ahead: the same items in the same order, errors where they belong, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import torch

from bbam_ray.engine.evaluation import evaluation_batches
from bbam_ray.engine.minibatches import EpochSteps
from bbam_ray.engine.prefetch import Copies, in_background
from bbam_ray.engine.trainer import Trainer

Make = Callable[..., Trainer]
AHEAD = partial(EpochSteps, ahead=True)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert [t for t in threading.enumerate() if t.name == "prefetch"] == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_items_come_in_their_order(count: int) -> None:
    assert list(in_background(iter(range(count)))) == list(range(count))


def test_items_are_computed_by_one_other_thread() -> None:
    names = list(in_background(threading.current_thread().name for _ in range(4)))
    assert names == ["prefetch"] * 4


def test_the_thread_is_a_bounded_number_of_items_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(30):
            made.append(number)
            yield number

    for number in in_background(items(), ahead=2):
        time.sleep(0.002)
        assert len(made) <= number + 1 + 2 + 1


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk")

    computed = in_background(items())
    assert (next(computed), next(computed)) == (1, 2)
    with pytest.raises(OSError, match="disk"):
        next(computed)


def test_a_consumer_that_stops_early_ends_the_thread() -> None:
    with closing(in_background(iter(int, 1))) as items:
        assert next(items) == 0


def test_copies_are_equal_to_their_source() -> None:
    tensors = torch.arange(5), torch.rand(2, 3)
    for copy, tensor in zip(Copies(torch.device("cpu")).start(*tensors)(), tensors, strict=True):
        assert torch.equal(copy, tensor)


@pytest.mark.parametrize("main_phase", [False, True])
def test_steps_that_are_read_ahead_are_the_same_bit_for_bit(
    main_phase: bool, tiny_trainer: Make
) -> None:
    trainer = tiny_trainer()

    def steps(ahead: bool) -> EpochSteps:
        return EpochSteps(
            trainer.config.training,
            trainer.data,
            trainer.views,
            trainer.labels,
            2,
            main_phase=main_phase,
            ahead=ahead,
        )

    pairs = list(zip(steps(False), steps(True), strict=True))
    assert len(pairs) > 1
    for one, two in pairs:
        assert torch.equal(one.labels, two.labels)
        for a, b in ((one.labeled, two.labeled), (one.unlabeled, two.unlabeled)):
            if a is None or b is None:
                assert a is b and not main_phase
                continue
            assert torch.equal(a.rows, b.rows) and a.total == b.total
            for kind in ("weak", "strong"):
                assert torch.equal(a.view(kind), b.view(kind))


def test_batches_that_are_read_ahead_are_the_same_bit_for_bit(tiny_trainer: Make) -> None:
    data, views = (trainer := tiny_trainer()).data, trainer.views
    arguments = data.inputs, data.unlabeled, 7, views, torch.device("cpu")
    pairs = list(
        zip(evaluation_batches(*arguments), evaluation_batches(*arguments, ahead=True), strict=True)
    )
    assert len(pairs) > 3
    for (positions, one), (others, two) in pairs:
        assert positions == others and torch.equal(one, two)


@pytest.mark.parametrize("method", ["bbam", "flatmatch"])
def test_training_with_samples_read_ahead_is_the_same_bit_for_bit(
    method: str, tiny_trainer: Make, run_to_end: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, ahead = tiny_trainer(method=method), tiny_trainer(method=method)
    run_to_end(plain)
    monkeypatch.setattr("bbam_ray.engine.trainer.EpochSteps", AHEAD)
    run_to_end(ahead)
    pairs = zip(plain.model.parameters(), ahead.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_step_that_fails_leaves_no_thread(
    tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bbam_ray.engine.trainer.EpochSteps", AHEAD)
    trainer = tiny_trainer()

    def fails(*args: Any) -> Any:
        raise RuntimeError("stop")

    monkeypatch.setattr(trainer.method, "labeled_loss", fails)
    with pytest.raises(RuntimeError, match="stop"):
        trainer.run_epoch()
