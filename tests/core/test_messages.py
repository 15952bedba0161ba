"""The messages of gloo groups: content and number of bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbam_ray import distributed
from bbam_ray.core.angle_histogram import ANGLE_BINS
from bbam_ray.engine.gradient_sum import GradientSum

Ranks = tuple[dict[str, Any], list[Any]]


def results_of(ranks: Ranks, name: str) -> list[Any]:
    """The results of each rank under this name."""
    return [small[name] for _, small in ranks[1]]


def test_ranks_know_each_others_number_of_rows(ranks: Ranks) -> None:
    size = len(ranks[1])
    start = 0
    for rank, (counts, index) in enumerate(
        zip(results_of(ranks, "counts"), results_of(ranks, "index"), strict=True)
    ):
        assert counts == [10 * r for r in range(size)]
        assert index.dtype == torch.int64
        assert index.tolist() == list(range(start, start + rank + 1))
        start += rank + 1
    assert results_of(ranks, "rank") == [(rank, size, True) for rank in range(size)]


def test_sums_of_several_tensors_travel_together(ranks: Ranks) -> None:
    size = len(ranks[1])
    for first, second in results_of(ranks, "sums"):
        assert first.tolist() == [sum(range(size))] * 2
        assert second.tolist() == [sum(range(size + 1))] * 3


def test_gathered_rows_are_those_of_all_ranks_in_rank_order(ranks: Ranks) -> None:
    """Rank 1 has none; the types are int64, float32, int8 and bool."""
    numbers = [10 * rank + i for rank in range(len(ranks[1])) if rank != 1 for i in range(rank + 2)]
    expected = torch.tensor(numbers)
    for plain, pairs, bytes_, flags in results_of(ranks, "gathered"):
        assert torch.equal(plain, expected)
        assert torch.equal(pairs, torch.stack([expected, -expected], 1).float())
        assert torch.equal(bytes_, expected.to(torch.int8))
        assert torch.equal(flags, expected.view(-1, 1, 1) % 2 == 0)


def test_every_rank_decides_by_the_value_of_rank_0(ranks: Ranks) -> None:
    assert results_of(ranks, "zero") == [1 / 3] * len(ranks[1])  # all 53 bits of it
    assert results_of(ranks, "minus infinity") == [float("-inf")] * len(ranks[1])


def test_a_copied_module_has_parameters_and_buffers_of_rank_0(ranks: Ranks) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    module(torch.randn(5, 3, 6, 6))
    for state in results_of(ranks, "copied"):
        assert state.keys() == module.state_dict().keys()
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(state[name], tensor, msg=name)
    assert all(
        torch.equal(state[name], first)
        for state in results_of(ranks, "copied")
        for name, first in results_of(ranks, "copied")[0].items()
    )


@pytest.mark.parametrize("size", [16, 1 << 20])
def test_gradients_of_any_type_are_summed_in_any_number_of_messages(
    size: int, ranks: Ranks
) -> None:
    """Rank r has (r + 1) (0, 1, 2, ...); ``second`` has no gradient on rank 1."""
    count = len(ranks[1])
    times = sum(range(count + 1))
    for result in results_of(ranks, "gradients"):
        found = result[size]
        assert float(found["loss"]) == 0.5 * times
        assert found["gradients"].pop("fixed") is None
        assert found["gradients"].pop("idle") is None  # as in one process, so that AdamW skips it
        for name, gradient in found["gradients"].items():
            numbers = torch.arange(gradient.numel(), dtype=gradient.dtype).view(gradient.shape)
            assert torch.equal(gradient, (times - 2 * (name == "second")) * numbers), name
        assert found["gradients"]["wide"].dtype == torch.float64
        sent = [entries for _, entries, _ in found["messages"]]
        # From the last parameter to the first: 2 and 24 numbers; 4 of float64; 7; 15, the loss, a vote
        # on a stop, and a flag for each of 5.
        last = 15 + 1 + 1 + 5
        assert sent == ([2 + 24, 4, 7, last] if size == 16 else [26, 4, 7 + last])


def test_gradients_are_sent_while_the_backward_pass_is_running(ranks: Ranks) -> None:
    """The message of a layer has left when the gradient reaches the layer before it."""
    for sent in results_of(ranks, "overlapped"):
        assert sent == [0, 1, 2, 3, 4]


def test_one_process_sends_nothing_and_changes_nothing() -> None:
    weight, loss = nn.Parameter(torch.ones(3)), torch.tensor(2.0)
    summed = GradientSum([weight])
    summed.backward((weight * 2).sum())
    assert summed.finish(loss) is loss
    assert weight.grad is not None and weight.grad.tolist() == [2, 2, 2]
    rows = torch.arange(3)
    assert distributed.gather_rows(rows)[0] is rows
    assert distributed.broadcast_float(0.1, rows.device) == 0.1
    assert distributed.row_counts(3, rows.device) == [3]
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    module = nn.Linear(2, 2)
    before: dict[str, Tensor] = {k: v.clone() for k, v in module.state_dict().items()}
    distributed.broadcast_module(module)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
def test_the_bytes_of_a_refresh_do_not_depend_on_the_number_of_samples(
    tied: bool, ranks: Ranks
) -> None:
    """Row counts, two selections, prototypes, moments, histograms, counts of positives, one more
    selection."""
    size, num_labels, width = len(ranks[1]), 4, 6
    selections = 3 * num_labels * (2048 + 2048 + 1024) * 8
    assert selections == 3 * 40_960 * num_labels
    expected = 8 * size + selections + 8 * num_labels * (width + 1) + 48 * num_labels
    expected += 2 * ANGLE_BINS * 8 * num_labels
    expected += 8 * num_labels
    if tied:  # who takes which of the ties is another selection, by positions in the union
        expected += selections + 3 * 8 * size
    for by_case in results_of(ranks, "traffic"):
        for count in (3000, 6000):
            messages = by_case[count, tied]
            assert {kind for kind, _, _ in messages} == {"all_reduce"}
            assert sum(sent for _, _, sent in messages) == expected
            assert max(entries for _, entries, _ in messages) == num_labels * 2048
            assert num_labels * 2048 < count * num_labels
