"""The order of configurations is a function of space, seed and lag alone. Ray is imported, not started."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest

from bbam_ray.engine.pruning_rule import TrialRules
from bbam_ray.errors import UsageError
from bbam_ray.results.schemas import COMPLETE, FAILED, PRUNED
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.pareto import pareto
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.samplers import SAMPLERS
from bbam_ray.scale.search.sequence import ConfigSequence
from bbam_ray.scale.search.space import Space
from bbam_ray.scale.search.space_file import read_space
from bbam_ray.scale.search.study_db import StudyDatabase
from bbam_ray.scale.study.tune_searcher import StudySearcher

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def space() -> Space:
    return read_space(ROOT / "search_spaces" / "digits.yaml", "digits", "bbam", {})


def outcome(number: int, values: dict[str, Any], state: str = COMPLETE) -> Outcome:
    """How a trial would end: a function of its configuration, as training is."""
    value = 1 - abs(values["margin"] - 0.3) - abs(values["scale"] - 15) / 30
    by_epoch = {1: value / 2, 2: value}
    if state == FAILED:
        return Outcome(number, values, FAILED, None, {}, "RuntimeError: out of memory")
    return Outcome(number, values, state, (value,), by_epoch)


def drawn(
    sequence: ConfigSequence, total: int, state: Callable[[int], str] = lambda n: COMPLETE
) -> list:
    """Draw and end one trial after the other."""
    for number in range(len(sequence.drawn), total):
        values = sequence.draw()
        sequence.outcomes.setdefault(number, outcome(number, values, state(number)))
    return sequence.drawn


def side_by_side(sequence: ConfigSequence, total: int, slots: int, rng: random.Random) -> list:
    """Draw whenever a slot is free, and let the running trials end in a random order."""
    running: dict[int, dict[str, Any]] = {}
    while len(sequence.drawn) < total or running:
        while len(sequence.drawn) < total and len(running) < slots and sequence.ready():
            number = len(sequence.drawn)
            running[number] = sequence.draw()
        assert running, "no trial runs and none can be drawn"
        number = rng.choice(sorted(running))
        sequence.outcomes[number] = outcome(number, running.pop(number))
    return sequence.drawn


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_configurations_of_start_follow_trial_0_and_a_resumed_study_keeps_them(
    space: Space, sampler: str
) -> None:
    start = tuple({**space.published, "margin": margin} for margin in (0.2, 0.25))
    longer = space.model_copy(update={"start": start})
    whole = drawn(ConfigSequence(longer, 3, 1, sampler=sampler), 6)
    assert whole[:3] == [space.published, *start]
    assert all(values not in whole[:3] for values in whole[3:])
    for ended in (1, 2, 3, 5):
        done = [outcome(number, whole[number]) for number in range(ended)]
        assert drawn(ConfigSequence(longer, 3, 1, done, sampler=sampler), 6) == whole


def test_trial_0_is_the_published_configuration(space: Space) -> None:
    for seed in (0, 1):
        assert ConfigSequence(space, seed, 1).draw() == space.published


def test_the_same_seed_draws_the_same_and_another_seed_others(space: Space) -> None:
    first, second, other = (drawn(ConfigSequence(space, seed, 1), 14) for seed in (5, 5, 6))
    assert first == second
    assert all(a != b for a, b in zip(first[1:], other[1:], strict=True))


def test_every_draw_lies_in_the_space_and_differs_from_the_others(space: Space) -> None:
    configurations = drawn(ConfigSequence(space, 0, 1), 16)
    for values in configurations:
        assert all(space.parameters[name].holds(value) for name, value in values.items())
        assert ("clamp" in values) == values["balance"]
    assert len({repr(values) for values in configurations}) == 16


def test_the_search_learns_from_outcomes(space: Space) -> None:
    """The same seed with the opposite outcomes leaves the random start on another way."""
    good, bad = ConfigSequence(space, 0, 1), ConfigSequence(space, 0, 1)
    drawn(good, 20)
    for number in range(20):
        values = bad.draw()
        ended = outcome(number, values)
        bad.outcomes[number] = Outcome(number, values, COMPLETE, (-ended.values[0],), {})
    assert good.drawn[:5] == bad.drawn[:5]
    assert good.drawn[12:] != bad.drawn[12:]


@pytest.mark.parametrize("lag", [2, 4, 6])
def test_configurations_do_not_depend_on_which_trial_ends_first(lag: int, space: Space) -> None:
    orders = [
        side_by_side(ConfigSequence(space, 0, lag), 16, slots=2, rng=random.Random(seed))
        for seed in range(4)
    ]
    assert all(order == orders[0] for order in orders)
    assert drawn(ConfigSequence(space, 0, lag), 16) == orders[0]


def test_the_lag_decides_what_a_draw_has_seen(space: Space) -> None:
    assert drawn(ConfigSequence(space, 0, 1), 20) != drawn(ConfigSequence(space, 0, 6), 20)


def test_a_draw_waits_for_the_outcomes_it_uses_and_for_no_others(space: Space) -> None:
    sequence = ConfigSequence(space, 0, 3)
    configurations = []
    for _ in range(3):
        assert sequence.ready()
        configurations.append(sequence.draw())
    assert not sequence.ready()  # trial 3 uses the outcome of trial 0
    sequence.outcomes[1] = outcome(1, configurations[1])
    assert not sequence.ready()
    sequence.outcomes[0] = outcome(0, configurations[0])
    assert sequence.ready()
    sequence.draw()
    assert sequence.ready()  # trial 4 uses those of trials 0 and 1
    sequence.draw()
    assert not sequence.ready()


@pytest.mark.parametrize("stop", [1, 4, 11, 14])
@pytest.mark.parametrize("lag", [1, 4])
def test_a_resumed_study_draws_what_it_would_have_drawn(stop: int, lag: int, space: Space) -> None:
    whole = drawn(ConfigSequence(space, 3, lag), 16)
    kept = [outcome(number, values) for number, values in enumerate(whole[:stop])]
    assert drawn(ConfigSequence(space, 3, lag, reversed(kept)), 16) == whole


def test_a_trial_that_was_lost_in_between_is_drawn_again_as_it_was(space: Space) -> None:
    whole = drawn(ConfigSequence(space, 3, 4), 12)
    kept = [outcome(n, values) for n, values in enumerate(whole[:9]) if n not in (5, 7)]
    assert drawn(ConfigSequence(space, 3, 4, kept), 12) == whole


def test_a_stored_configuration_is_kept_even_if_it_would_be_drawn_differently(
    space: Space,
) -> None:
    """As after an update of Optuna: what was run is what counts."""
    other = drawn(ConfigSequence(space, 99, 1), 3)
    kept = [outcome(number, other[number]) for number in (0, 1, 2)]
    assert drawn(ConfigSequence(space, 3, 1, kept), 5)[:3] == other
    assert drawn(ConfigSequence(space, 3, 1), 3)[1:] != other[1:]


@pytest.mark.parametrize("state", [PRUNED, FAILED])
def test_a_trial_that_did_not_complete_does_not_stop_the_search(state: str, space: Space) -> None:
    states = {0: state, 2: state, 3: state}
    configurations = drawn(ConfigSequence(space, 0, 1), 6, lambda n: states.get(n, COMPLETE))
    assert len(configurations) == 6


def test_a_failed_trial_without_any_epoch_can_be_the_first(space: Space) -> None:
    sequence = ConfigSequence(space, 0, 1)
    sequence.outcomes[0] = Outcome(0, sequence.draw(), FAILED, None, {}, "killed")
    assert sequence.ready()
    sequence.draw()


def test_stored_configurations_outside_a_changed_space_are_refused(space: Space) -> None:
    stored = Outcome(0, {**space.published, "margin": 1.9}, COMPLETE, (0.5,))
    with pytest.raises(UsageError, match="search space no longer holds"):
        ConfigSequence(space, 0, 1, [stored]).draw()


# ------------------------------------------------------------------ what Ray Tune asks


NEVER = Stopping("none", 1, 0, 2, 3, "val_map", "max")


def test_the_searcher_fills_the_slots_and_ends_with_the_last_trial(space: Space) -> None:
    sequence = ConfigSequence(space, 0, 4)
    searcher = StudySearcher(sequence, 3, 2, NEVER)
    searcher.use_fingerprint(lambda parameters: f"{parameters['margin']}")
    first = searcher.suggest("a")
    assert first | {"rules": pickle.loads(first["rules"])} == {
        "number": 0,
        "parameters": space.published,
        "rules": TrialRules(),
        "fingerprint": f"{space.published['margin']}",
    }
    second = searcher.suggest("b")
    assert second["number"] == 1
    assert searcher.suggest("c") is None  # both slots are taken
    sequence.outcomes[1] = outcome(1, second["parameters"])
    assert searcher.suggest("c")["number"] == 2
    sequence.outcomes[0] = outcome(0, first["parameters"])
    assert searcher.suggest("d") is None  # trial 2 may have to be handed out again
    sequence.outcomes[2] = outcome(2, sequence.drawn[2])
    assert searcher.suggest("d") == StudySearcher.FINISHED


def test_a_trial_that_never_began_is_handed_out_again(space: Space) -> None:
    sequence = ConfigSequence(space, 0, 4)
    searcher = StudySearcher(sequence, 2, 2, NEVER)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    searcher.retry(0)
    assert searcher.suggest("c") == first
    assert searcher.suggest("d") is None
    searcher.retry(0)
    searcher.retry(1)
    assert [searcher.suggest(name) for name in "ef"] == [first, second]


def test_a_place_in_which_no_worker_starts_gets_no_further_trial(space: Space) -> None:
    sequence = ConfigSequence(space, 0, 9)
    searcher = StudySearcher(sequence, 9, 2, NEVER)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    searcher.lose_place()
    sequence.outcomes[0] = outcome(0, first["parameters"], FAILED)
    assert not searcher.cannot_start
    assert searcher.suggest("c") is None  # trial 1 has the other place
    sequence.outcomes[1] = outcome(1, second["parameters"])
    third = searcher.suggest("c")
    assert third["number"] == 2
    searcher.lose_place()
    assert searcher.cannot_start
    assert searcher.suggest("d") is None  # trial 2 has not ended
    sequence.outcomes[2] = outcome(2, third["parameters"], FAILED)
    assert searcher.suggest("d") == StudySearcher.FINISHED


def test_the_searcher_skips_what_is_done(space: Space) -> None:
    whole = drawn(ConfigSequence(space, 0, 1), 5)
    kept = [outcome(number, whole[number]) for number in (0, 1, 3)]
    searcher = StudySearcher(ConfigSequence(space, 0, 4, kept), 5, 2, NEVER)
    assert [searcher.suggest(name)["number"] for name in "ab"] == [2, 4]


# ------------------------------------------------------------------ study.db


def write_study_db(folder: Path, space: Space, outcomes: Iterable[Outcome]) -> None:
    with StudyDatabase(folder, space) as database:
        database.write({each.number: each for each in outcomes}, complete=True)


def stored_numbers(folder: Path) -> list[int]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.load_study(study_name=folder.name, storage=storage)
    numbers = [trial.user_attrs["number"] for trial in study.trials]
    storage.engine.dispose()
    return numbers


def test_the_database_gets_each_trial_once_in_order(space: Space, tmp_path: Path) -> None:
    outcomes: dict[int, Outcome] = {}
    with StudyDatabase(tmp_path, space) as database:
        for ended, stored in (((), 0), ((0, 2), 1), ((1,), 3), ((4, 6), 3)):
            outcomes |= {number: outcome(number, dict(space.published)) for number in ended}
            database.write(outcomes)
            assert stored_numbers(tmp_path) == list(range(stored))
        for _ in range(2):
            database.write(outcomes, complete=True)
            assert stored_numbers(tmp_path) == [0, 1, 2, 4, 6]


def test_optuna_opens_what_was_written(space: Space, tmp_path: Path) -> None:
    configurations = drawn(ConfigSequence(space, 0, 1), 4)
    states = [COMPLETE, FAILED, PRUNED, COMPLETE]
    outcomes = [outcome(n, configurations[n], states[n]) for n in (3, 1, 0, 2)]
    write_study_db(tmp_path, space, outcomes)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.load_study(study_name=tmp_path.name, storage=storage)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE",
        "FAIL",
        "PRUNED",
        "COMPLETE",
    ]
    assert [trial.params for trial in study.trials] == configurations
    ended = {item.number: item for item in outcomes}
    for trial in study.trials:
        assert trial.intermediate_values == ended[trial.number].by_epoch
    assert study.trials[0].values == list(ended[0].values)
    assert study.trials[3].values == list(ended[3].values)
    assert study.best_trial.number in (0, 3)
    storage.engine.dispose()


def test_the_database_is_replaced_as_a_whole(space: Space, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    configurations = drawn(ConfigSequence(space, 0, 1), 3)
    for count in (1, 3, 2):
        outcomes = [outcome(n, configurations[n]) for n in range(count)]
        write_study_db(tmp_path, space, outcomes)
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        study = optuna.load_study(study_name=tmp_path.name, storage=storage)
        assert len(study.trials) == count
        storage.engine.dispose()
        assert [file.name for file in tmp_path.iterdir()] == ["study.db"]


def test_a_write_that_breaks_off_leaves_the_old_database(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.db"
    write_study_db(tmp_path, space, [outcome(0, space.published)])
    old = path.read_bytes()

    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.study.Study, "add_trial", refused)
        with pytest.raises(OSError):
            write_study_db(tmp_path, space, [outcome(0, space.published)])
    assert path.read_bytes() == old
    write_study_db(tmp_path, space, [])  # the leftover of the failed write does not matter
    assert path.read_bytes() != old


def test_a_minimised_measure_is_written_as_such(space: Space, tmp_path: Path) -> None:
    low = space.model_copy(update={"mode": "min", "metric": "val_hamming_loss"})
    write_study_db(tmp_path, low, [outcome(0, low.published)])
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.load_study(study_name=tmp_path.name, storage=storage)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.user_attrs["metric"] == "val_hamming_loss"
    storage.engine.dispose()
    assert drawn(ConfigSequence(low, 0, 1), 3)[0] == space.published


# ------------------------------------------------------------------ samplers, prior, objectives


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("stop", [1, 6, 13])
def test_every_sampler_resumes_where_it_stopped(sampler: Any, stop: int, space: Space) -> None:
    whole = drawn(ConfigSequence(space, 3, 4, sampler=sampler), 16)
    kept = [outcome(number, values) for number, values in enumerate(whole[:stop])]
    assert drawn(ConfigSequence(space, 3, 4, kept, sampler=sampler), 16) == whole
    assert whole[0] == space.published
    assert len({repr(values) for values in whole}) == 16
    for values in whole:
        assert all(space.parameters[name].holds(value) for name, value in values.items())
        assert ("clamp" in values) == values["balance"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_depends_on_which_trial_ends_first(sampler: Any, space: Space) -> None:
    orders = [
        side_by_side(
            ConfigSequence(space, 0, 4, sampler=sampler), 14, slots=2, rng=random.Random(seed)
        )
        for seed in range(2)
    ]
    assert orders[0] == orders[1] == drawn(ConfigSequence(space, 0, 4, sampler=sampler), 14)


@pytest.mark.parametrize(("sampler", "learns"), [("tpe", 1), ("gp", 1), ("qmc", 0), ("random", 0)])
def test_only_model_based_samplers_look_at_outcomes(
    sampler: Any, learns: bool, space: Space
) -> None:
    good, bad = (ConfigSequence(space, 0, 1, sampler=sampler) for _ in range(2))
    drawn(good, 18)
    for number in range(18):
        values = bad.draw()
        bad.outcomes[number] = Outcome(
            number, values, COMPLETE, (-outcome(number, values).values[0],), {}
        )
    assert (good.drawn != bad.drawn) == learns


def test_sobol_points_fill_a_range_evenly(space: Space) -> None:
    """Of 16 points of a scrambled Sobol sequence each sixteenth of a range has one; 2 are at its ends."""
    points = drawn(ConfigSequence(space, 0, 1, sampler="qmc"), 17)[1:]
    low, high = space.parameters["margin"].low, space.parameters["margin"].high
    cells = {int(16 * (values["margin"] - low) / (high - low)) for values in points}
    assert len(cells) == 16


def test_outcomes_of_another_study_are_known_from_the_beginning(space: Space) -> None:
    elsewhere = drawn(ConfigSequence(space, 9, 1), 20)
    prior = [outcome(n - 20, values) for n, values in enumerate(elsewhere)]
    alone, helped = (ConfigSequence(space, 0, 4, prior=given) for given in ([], prior))
    assert drawn(alone, 6)[0] == drawn(helped, 6)[0] == space.published
    assert alone.drawn[1:] != helped.drawn[1:]
    assert [o.number for o in helped.known(0)] == list(range(-20, 0))
    assert {o.number for o in helped.known(6)} == {*range(-20, 0), 0, 1, 2}
    kept = [outcome(n, values) for n, values in enumerate(helped.drawn[:3])]
    assert drawn(ConfigSequence(space, 0, 4, kept, prior=prior), 6) == helped.drawn


def test_several_objectives(space: Space, tmp_path: Path) -> None:
    two = space.model_copy(update={"also": (("seconds_per_epoch", "min"),)})
    sequence = ConfigSequence(two, 0, 1)
    for number in range(14):
        values = sequence.draw()
        (quality,) = outcome(number, values).values
        sequence.outcomes[number] = Outcome(
            number, values, COMPLETE, (quality, values["scale"]), {1: quality}
        )
    write_study_db(tmp_path, two, sequence.outcomes.values())
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.load_study(study_name=tmp_path.name, storage=storage)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.user_attrs["metric"] == ["val_map", "seconds_per_epoch"]
    rows = [
        {"number": n, "state": COMPLETE, "val_map": o.values[0], "seconds_per_epoch": o.values[1]}
        for n, o in sequence.outcomes.items()
    ]
    assert pareto(rows, two) == {trial.number for trial in study.best_trials}
    storage.engine.dispose()


def test_a_budget_that_is_used_up_ends_the_search_when_the_running_trials_have(
    space: Space,
) -> None:
    sequence, allowed = ConfigSequence(space, 0, 4), [True]
    searcher = StudySearcher(sequence, 9, 2, NEVER, may_start=lambda running: allowed[0])
    first = searcher.suggest("a")
    allowed[0] = False
    assert searcher.suggest("b") is None
    sequence.outcomes[0] = outcome(0, first["parameters"])
    assert searcher.suggest("b") == StudySearcher.FINISHED
    assert len(sequence.drawn) == 1


def test_reused_trials_take_no_slot(space: Space) -> None:
    def lookup(number: int, values: dict[str, Any], pruning_rule: Any) -> Outcome | None:
        return outcome(number, values) if number % 2 else None

    sequence = ConfigSequence(space, 0, 4)
    searcher = StudySearcher(sequence, 8, 2, NEVER)
    searcher.use_lookup(lookup)
    assert [searcher.suggest(name)["number"] for name in "ab"] == [0, 2]
    assert searcher.suggest("c") is None
    assert set(sequence.outcomes) == {1}
    trained = drawn(ConfigSequence(space, 0, 4), 8)
    for number in (0, 2):
        sequence.outcomes[number] = outcome(number, trained[number])
    assert [searcher.suggest(name)["number"] for name in "cd"] == [4, 6]
    assert sequence.drawn == trained[:7]
