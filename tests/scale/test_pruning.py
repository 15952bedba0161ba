"""Which trials are pruned: the published rules, as a function of earlier trials and of nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.errors import UsageError
from bbam_ray.results.schemas import COMPLETE, PRUNED
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.schedulers import hyperband_bracket
from bbam_ray.scale.search.sequence import ConfigSequence
from bbam_ray.scale.search.space_file import read_space

ROOT = Path(__file__).parents[2]
WARMUP, EPOCHS = 5, 20


def stopping(scheduler: Any, **changes: Any) -> Stopping:
    values = {"grace": WARMUP + 1, "warmup": WARMUP, "epochs": EPOCHS, "reduction": 3}
    return Stopping(scheduler, **{**values, "metric": "val_map", "mode": "max", **changes})


def bracket_of(rule: Stopping, number: int) -> int:
    return hyperband_bracket(number, len(rule.rungs), rule.reduction)


def curve(seed: object) -> dict[int, float]:
    """Values of a trial by epoch, if nothing stops it."""
    rng = random.Random(repr(seed))
    level, noise = rng.random(), 0.1
    return {e: level * e / EPOCHS + noise * rng.random() for e in range(1, EPOCHS + 1)}


def train(number: int, pruning_rule: PruningRule | None, values: dict[int, float]) -> Outcome:
    """The outcome of a trial that trains epoch by epoch until its pruning rule stops it."""
    done: dict[int, float] = {}
    for epoch, value in values.items():
        done[epoch] = value
        if pruning_rule and pruning_rule.stops(epoch, done):
            return Outcome(number, {}, PRUNED, (max(done.values()),), done)
    return Outcome(number, {}, COMPLETE, (max(done.values()),), done)


def one_after_the_other(rule: Stopping, curves: Iterable[dict[int, float]]) -> list[Outcome]:
    ended: list[Outcome] = []
    for number, values in enumerate(curves):
        ended.append(train(number, rule.pruning_rule(number, ended), values))
    return ended


def test_rungs_are_main_phase_epochs_in_powers_of_eta() -> None:
    assert stopping("asha").rungs == [6, 8, 14]
    assert stopping("asha", reduction=2).rungs == [6, 7, 9, 13]
    assert stopping("asha", grace=9).rungs == [9, 17]
    assert stopping("asha", warmup=0, grace=1).rungs == [1, 3, 9]


@pytest.mark.parametrize("reduction", [2, 3, 4])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_asha_is_optunas_asha_where_trials_run_one_after_the_other(
    reduction: int, mode: Any
) -> None:
    rule = stopping("asha", reduction=reduction, mode=mode)
    curves = [curve((reduction, n)) for n in range(40)]
    mine = one_after_the_other(rule, curves)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction)
    study = optuna.create_study(
        pruner=pruner, direction="maximize" if mode == "max" else "minimize"
    )
    for number, values in enumerate(curves):
        trial = study.ask()
        for epoch in range(WARMUP + 1, EPOCHS):
            trial.report(values[epoch], epoch - WARMUP)
            if trial.should_prune():
                break
        else:
            epoch = EPOCHS
        study.tell(trial, values[epoch])
        assert max(mine[number].by_epoch) == epoch, number
    ends = Counter(max(outcome.by_epoch) for outcome in mine)
    assert set(ends) <= {*rule.rungs, EPOCHS}
    assert ends[WARMUP + 1] > ends[EPOCHS] > 0


def test_the_median_rule_is_that_of_its_description() -> None:
    rule = stopping("median")
    curves = [curve(n) for n in range(25)]
    ended = one_after_the_other(rule, curves)
    for outcome in ended:
        for epoch in range(1, EPOCHS):
            before = [o.by_epoch for o in ended[: outcome.number] if epoch in o.by_epoch]
            best = [max(v for e, v in b.items() if e <= epoch) for b in before]
            mine = curves[outcome.number]
            missed = (
                epoch > WARMUP
                and len(best) >= 4
                and max(mine[e] for e in range(1, epoch + 1)) < median(best)
            )
            if missed or epoch == max(outcome.by_epoch):
                assert missed
                assert (outcome.state, max(outcome.by_epoch)) == (PRUNED, epoch)
                break
        else:
            assert outcome.state == COMPLETE
    assert {outcome.state for outcome in ended} == {COMPLETE, PRUNED}


def test_brackets_of_hyperband_take_turns_in_their_proportions() -> None:
    rule = stopping("hyperband")  # three rungs: sizes ceil(4 * 27 / 4), ceil(4 * 9 / 3), ...
    sizes = {0: 27, 1: 12, 2: 6, 3: 4}
    total = sum(sizes.values())
    assert Counter(bracket_of(rule, n) for n in range(total)) == sizes
    assert Counter(bracket_of(rule, n) for n in range(total, 3 * total)) == {
        b: 2 * size for b, size in sizes.items()
    }
    for start in range(0, total - 12, 4):  # evenly: no bracket has to wait for a round
        assert {0, 1} <= {bracket_of(rule, n) for n in range(start, start + 8)}


def test_hyperband_compares_within_a_bracket_and_from_its_first_rung_on() -> None:
    rule = stopping("hyperband")
    ended = one_after_the_other(rule, [curve(n) for n in range(60)])
    for outcome in ended:
        bracket = bracket_of(rule, outcome.number)
        in_bracket = [o for o in ended[: outcome.number] if bracket_of(rule, o.number) == bracket]
        pruning_rule = rule.pruning_rule(outcome.number, ended[: outcome.number])
        assert set(pruning_rule.thresholds if pruning_rule else {}) <= set(rule.rungs[bracket:])
        assert pruning_rule == stopping("hyperband").pruning_rule(outcome.number, in_bracket)
        if bracket == 3:
            assert outcome.state == COMPLETE


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_no_trial_is_stopped_before_it_can_be_compared(scheduler: Any) -> None:
    for grace in (WARMUP + 1, WARMUP + 4):
        rule = stopping(scheduler, grace=grace)
        ended = one_after_the_other(rule, [curve(n) for n in range(50)])
        assert min(max(outcome.by_epoch) for outcome in ended) >= grace
        assert any(outcome.state == PRUNED for outcome in ended)


def test_without_a_scheduler_nothing_is_stopped() -> None:
    ended = one_after_the_other(stopping("none"), [curve(n) for n in range(20)])
    assert all(outcome.state == COMPLETE for outcome in ended)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_which_trials_stop_does_not_depend_on_which_ends_first(scheduler: Any) -> None:
    """Draws and stops of a study of four slots, with trials that end in any order."""
    space = read_space(ROOT / "search_spaces" / "digits.yaml", "digits", "bbam", {})
    rule = stopping(scheduler)

    def study(rng: random.Random, stop_after: int | None = None) -> list[tuple[str, int, str]]:
        sequence, total, running = ConfigSequence(space, 1, 8), 30, {}

        def draw_all() -> None:
            while len(sequence.drawn) < total and len(running) < 4 and sequence.ready():
                number = len(sequence.drawn)
                values = sequence.draw()
                if number not in sequence.outcomes:
                    running[number] = values, rule.pruning_rule(number, sequence.known(number))

        while True:
            draw_all()
            if not running:
                break
            number = rng.choice(sorted(running))
            values, pruning_rule = running.pop(number)
            outcome = train(number, pruning_rule, curve(repr(values)))
            sequence.outcomes[number] = Outcome(
                number, values, outcome.state, outcome.values, outcome.by_epoch
            )
            if len(sequence.outcomes) == stop_after:  # killed, then resumed from the store
                sequence = ConfigSequence(space, 1, 8, sequence.outcomes.values())
                running = {}
        ended = sequence.outcomes
        return [
            (ended[n].state, max(ended[n].by_epoch), repr(ended[n].parameters))
            for n in range(total)
        ]

    whole = study(random.Random(0))
    assert {state for state, _, _ in whole} == {COMPLETE, PRUNED}
    for seed, killed_after in ((1, None), (2, None), (3, 5), (4, 17)):
        assert study(random.Random(seed), killed_after) == whole


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.floats(-1, 1), max_size=9), st.integers(1, 9))
def test_a_pruning_rule_gives_the_same_end_at_once_and_epoch_by_epoch(
    values: dict[int, float], cut_at: int
) -> None:
    for best_so_far in (False, True):
        for up in (False, True):
            pruning_rule = PruningRule("val_map", up, {cut_at: 0.0, 9: 0.5}, best_so_far)
            walked = None
            for epoch in sorted(values):
                known = {e: v for e, v in values.items() if e <= epoch}
                if walked is None and pruning_rule.stops(epoch, known):
                    walked = epoch
            assert pruning_rule.end(values) == walked


def test_an_epoch_without_a_value_stops_nothing() -> None:
    assert not PruningRule("val_map", True, {2: 0.5}).stops(2, {1: 0.1})
    assert PruningRule("val_map", True, {2: 0.5}).stops(2, {1: 0.9, 2: 0.1})
    assert not PruningRule("val_map", True, {2: 0.5}, best_so_far=True).stops(2, {1: 0.9, 2: 0.1})
    assert not PruningRule("val_map", True, {2: 0.5}).stops(2, {2: 0.5})  # a tie continues


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grace": 5}, ["--grace-epochs 5", "warm-up", "at least 6"]),
        ({"grace": 20}, ["--grace-epochs 20", "20 epochs", "--scheduler none"]),
        ({"grace": 6, "warmup": 20}, ["--grace-epochs 6", "at least 20"]),
    ],
)
def test_a_grace_period_that_makes_no_sense_is_refused(
    changes: dict[str, int], words: list[str]
) -> None:
    with pytest.raises(UsageError) as error:
        stopping("asha", **changes)
    assert all(word in str(error.value) for word in words)
    stopping("none", **changes)
