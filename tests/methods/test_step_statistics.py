"""Means over a step and their averages over steps."""

from __future__ import annotations

import pytest
import torch

from bbam_ray.methods.step_statistics import StepAverage, batch_means

CPU = torch.device("cpu")


def test_a_mean_is_the_sum_over_this_share_by_the_global_total() -> None:
    values = torch.tensor([[1.0, 2], [3, 5], [0, 1]])
    whole, square = batch_means(3, values, values.square())
    assert whole.tolist() == pytest.approx([4 / 3, 8 / 3])
    assert square.tolist() == pytest.approx([10 / 3, 10])
    shares = [batch_means(3, part)[0] for part in (values[:1], values[1:], values[:0])]
    torch.testing.assert_close(torch.stack(shares).sum(0), whole)
    assert whole.dtype == torch.float64


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.999])
def test_the_average_starts_with_the_first_values_and_ends_with_the_momentum(
    momentum: float,
) -> None:
    average, expected = StepAverage((2,), momentum, CPU), torch.zeros(2, dtype=torch.float64)
    for step in range(30):
        now = torch.tensor([float(step), 1.0], dtype=torch.float64)
        old = min(momentum, (1 + step) / (10 + step)) if step else 0.0
        expected = old * expected + (1 - old) * now
        torch.testing.assert_close(average.update(now), expected)
    assert float(average.value[1]) == pytest.approx(1)


def test_an_average_continues_from_its_saved_state() -> None:
    first, second = StepAverage((1,), 0.9, CPU), StepAverage((1,), 0.9, CPU)
    for value in (3.0, 4.0):
        first.update(torch.tensor([value]))
    second.load_state_dict(first.state_dict())
    now = torch.tensor([8.0])
    assert torch.equal(first.update(now), second.update(now))
    assert second.updates == 3
