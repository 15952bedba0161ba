"""The kept weights against their definition: of the last epoch, the best one, or the better phase."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbam_ray.engine.kept_weights import KeptWeights
from bbam_ray.engine.weight_choice import WeightChoice

SCORES = torch.tensor([[2.0, -1.0], [-1.0, 2.0], [1.0, 1.0]])
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
VALUES = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8)


def followed(
    rule: str, values: list[float], warmup: int, *, has_main_phase: bool = True
) -> WeightChoice:
    """A choice after an evaluation with each value; the scores do not change, so nothing does harm."""
    choice = WeightChoice(rule, len(values), warmup, has_main_phase=has_main_phase)
    for epoch, value in enumerate(values, 1):
        weights = KeptWeights.of(epoch, value, SCORES, {"weight": torch.tensor(epoch)}, {})
        columns = choice.after_evaluation(epoch, value, SCORES, LABELS, lambda w=weights: w)
        in_main_phase = rule == "phase" and has_main_phase and 0 < warmup < epoch
        assert columns == ({"flipped": 0.0} if in_main_phase else {})
    return choice


def expected(rule: str, values: list[float], warmup: int, *, has_main_phase: bool) -> int:
    last = len(values)
    if rule == "best":
        return 1 + values.index(max(values))
    if (
        rule == "phase"
        and has_main_phase
        and 1 <= warmup <= last
        and values[warmup - 1] > values[-1]
    ):
        return warmup
    return last


@given(VALUES, st.integers(0, 8), st.booleans(), st.sampled_from(["last", "phase", "best"]))
def test_the_epoch_is_that_of_the_definition(
    values: list[float], warmup: int, has_main_phase: bool, rule: str
) -> None:
    choice = followed(rule, values, warmup, has_main_phase=has_main_phase)
    best = choice.best_epoch(len(values))
    assert best == expected(rule, values, warmup, has_main_phase=has_main_phase)
    if best < len(values):
        assert choice.fallback is not None and choice.fallback.average["weight"] == best
    assert not choice.harmful and choice.last_map == values[-1]


@given(VALUES, st.sampled_from(["last", "phase", "best"]))
def test_a_restored_choice_is_the_same(values: list[float], rule: str) -> None:
    choice = followed(rule, values, 2)
    again = WeightChoice(rule, len(values), 2, has_main_phase=True)
    again.load_state_dict(choice.state_dict() | {"other": 1}, torch.device("cpu"))
    assert again.best_epoch(len(values)) == choice.best_epoch(len(values))
    assert torch.equal(again.last_logits, choice.last_logits)
    assert (again.fallback is None) == (choice.fallback is None)


@pytest.mark.parametrize(("epochs", "is_due"), [(5, False), (6, True)])
def test_harm_ends_a_main_phase_from_its_middle_on(epochs: int, is_due: bool) -> None:
    labels = (torch.arange(40)[:, None] % 4 == torch.arange(4)).float()
    good, bad = labels * 2 - 1, 1 - labels * 2
    choice = WeightChoice("phase", 10, 2, has_main_phase=True)
    for epoch in range(1, epochs + 1):
        logits = good if epoch <= 2 else bad
        value = 1.0 if epoch <= 2 else 0.2
        weights = KeptWeights.of(epoch, value, logits, {}, {})
        choice.after_evaluation(epoch, value, logits, labels, lambda w=weights: w)
    assert choice.harmful is is_due
    assert choice.best_epoch(epochs) == 2
    choice.forget_scores()
    assert len(choice.last_logits) == 0
