"""Early stopping, reuse, warm start, budgets and several objectives in real studies on one Ray."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from bbam_ray.results.loading import Study

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

EPOCHS, WARMUP = 8, 2
RUNGS = [3, 4, 6]
SECONDS_OF_GPU = 4.0
WIDER = """
parameters:
  scale: {type: float, low: 8, high: 40, log: true}
  margin: {type: float, low: 0.1, high: 0.6}
  unlabeled_weight: {type: float, low: 0.2, high: 4, log: true}
  positive_keep: {type: float, low: 0.6, high: 1.0}
  negative_keep: {type: categorical, choices: [0.95, 0.998]}
  negative_ratio: {type: categorical, choices: [5, 20, .inf]}
  balance: {type: categorical, choices: [true, false]}
  clamp: {type: categorical, choices: [true, false], when: {balance: true}}
  learning_rate: {type: float, low: 4e-3, high: 1.6e-2, log: true}
published: {scale: 20, margin: 0.4, unlabeled_weight: 3, positive_keep: 1.0, negative_keep: 0.998,
  negative_ratio: 5, balance: true, clamp: false, learning_rate: 8e-3}
"""
TWO = """
metric: [val_map, seconds_per_epoch]
mode: [max, min]
parameters: {margin: {type: float, low: 0.1, high: 0.6}, unlabeled_batch: {type: int, low: 16, high: 64}}
published: {margin: 0.4, unlabeled_batch: 48}
"""
CLOCK = ["study", "started_at", "duration_s", "gpu_hours", "seconds_per_epoch", "answered_by"]


@pytest.fixture(scope="module")
def summaries(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[..., Any]
) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of all studies, and the printed summary of each, in order."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "wider.yaml").write_text(WIDER)
    (folder / "two.yaml").write_text(TWO)
    script = program(
        *(Path(__file__).with_name("rules_script.py"), str(folder / "results")),
        *(str(folder / "wider.yaml"), str(folder / "two.yaml"), str(SECONDS_OF_GPU)),
    )
    assert script.finish(300) == 0, script.output
    lines = [
        json.loads(line.removeprefix("SUMMARY"))
        for _, line in script.lines
        if line.startswith("SUMMARY")
    ]
    return folder / "results" / "digits", lines


@pytest.fixture(scope="module")
def studies(summaries: tuple[Path, Any]) -> dict[str, Study]:
    return {path.name: Study(path) for path in summaries[0].iterdir()}


def by_number(study: Study) -> pd.DataFrame:
    return study.trials.sort_values("number").reset_index(drop=True)


def figures(study: Study, numbers: list[int]) -> pd.DataFrame:
    """Rows of the history, but for what depends on the clock."""
    rows = study.history[study.history["number"].isin(numbers)]
    clock = [n for n in rows if n.startswith(("seconds_", "images_per"))]
    return rows.drop(columns=[*clock, "study"]).reset_index(drop=True)


def test_trials_that_are_stopped_early_leave_what_they_had_done(studies: Any) -> None:
    study = studies["asha"]
    trials = by_number(study)
    assert trials["number"].tolist() == list(range(12))  # the next trial starts in the freed slot
    pruned, complete = (trials[trials["state"] == state] for state in ("PRUNED", "COMPLETE"))
    assert len(pruned) >= 3
    assert len(pruned) + len(complete) == 12
    assert set(pruned["epochs"]) <= set(RUNGS)
    assert set(complete["epochs"]) == {EPOCHS}
    assert pruned["error"].isna().all()
    for row in trials.itertuples():
        mine = study.history[study.history["number"] == row.number]
        assert mine["epoch"].tolist() == list(range(1, row.epochs + 1))
        assert row.best_epoch == (WARMUP if row.kept.startswith("warmup") else row.epochs)
        assert row.val_map == mine.set_index("epoch")["val_map"][row.best_epoch]
    chosen = complete.set_index("number").loc[study.record["chosen"]]
    assert study.best["margin"] == chosen["param_margin"]


def test_the_same_seed_gives_the_same_trials_twice(studies: Any) -> None:
    """Both were trained: as long as nothing is stopped, a study with ASHA is the one without."""
    plain, asha = (by_number(studies[name]).drop(columns=CLOCK) for name in ("plain", "asha"))
    same = (asha["state"] == "COMPLETE")[:8].cummin()
    assert same.sum() >= studies["asha"].record["lag"]
    pd.testing.assert_frame_equal(asha[:8][same], plain[same])
    numbers = plain["number"][same].tolist()
    pd.testing.assert_frame_equal(*(figures(studies[n], numbers) for n in ("plain", "asha")))
    assert by_number(studies["asha"])["answered_by"].isna().all()


def test_a_stopped_trial_was_worse_than_those_before_it_at_its_rung(studies: Any) -> None:
    study = studies["asha"]
    trials = by_number(study)
    value = study.history.set_index(["number", "epoch"])["val_map"]
    lag = study.record["lag"]
    for row in trials[trials["state"] == "PRUNED"].itertuples():
        before = [
            value[n, row.epochs] for n in range(row.number - lag + 1) if (n, row.epochs) in value
        ]
        better = sum(other > value[row.number, row.epochs] for other in before)
        assert better >= max(1, (len(before) + 1) // 2)


def test_optuna_knows_stopped_trials_as_pruned_with_their_values(studies: Any) -> None:
    study = studies["asha"]
    storage = optuna.storages.RDBStorage(f"sqlite:///{study.folder / 'study.db'}")
    loaded = optuna.load_study(study_name="asha", storage=storage)
    trials = by_number(study)
    assert [trial.state.name for trial in loaded.trials] == trials["state"].tolist()
    for trial, row in zip(loaded.trials, trials.itertuples(), strict=True):
        assert list(trial.intermediate_values) == list(range(1, row.epochs + 1))
        assert (trial.values is None) == (row.state == "PRUNED")
    storage.engine.dispose()


def test_the_same_study_again_reuses_the_stored_trials(studies: Any, summaries: Any) -> None:
    plain, again = studies["plain"], studies["again"]
    sources = by_number(again)["answered_by"].str.split("/")
    assert sources.str[0].isin(["plain", "asha"]).all()
    assert sources.str[1].tolist()[:4] == [f"t{n:05d}" for n in range(4)]
    events = next(entry["events"] for entry in summaries[1] if entry["name"] == "again")
    assert "EpochDone" not in {kind for kind, _ in events}
    assert [n for kind, n in events if kind == "TrialEnded"] == list(range(8))
    left, right = (by_number(s).drop(columns=CLOCK) for s in (plain, again))
    pd.testing.assert_frame_equal(left, right)
    pd.testing.assert_frame_equal(*(figures(s, list(range(8))) for s in (plain, again)))
    assert again.labels.drop(columns="study").equals(plain.labels.drop(columns="study"))
    assert again.trials["gpu_hours"].sum() == 0
    assert by_number(again)["fingerprint"].tolist() == by_number(plain)["fingerprint"].tolist()


def test_a_reused_trial_ends_where_its_pruning_rule_would_have_ended_it(studies: Any) -> None:
    """The study with ASHA again: what ``plain`` and ``again`` had trained in full is cut, not trained."""
    asha, cut = by_number(studies["asha"]), by_number(studies["cut"])
    pd.testing.assert_frame_equal(asha.drop(columns=CLOCK), cut.drop(columns=CLOCK))
    numbers = list(range(12))
    pd.testing.assert_frame_equal(
        figures(studies["asha"], numbers), figures(studies["cut"], numbers)
    )
    answered = cut[cut["answered_by"].notna()]
    assert len(answered) >= 3
    assert answered["answered_by"].str.match(r"(again|plain|asha)/t\d{5}").all()
    assert "PRUNED" in set(answered["state"])


def test_a_changed_space_begins_with_what_the_old_study_knows(studies: Any) -> None:
    plain, wider = by_number(studies["plain"]), studies["wider"]
    prior = wider.record["rules"]["prior"]
    fits = plain[plain["param_ema_decay"] == 0.99]  # no longer searched: the default is fixed
    assert 1 <= len(fits) < len(plain)
    assert [item["number"] for item in prior] == list(range(-len(fits), 0))
    assert [item["values"][0] for item in prior] == fits["val_map"].tolist()
    assert [item["parameters"]["margin"] for item in prior] == fits["param_margin"].tolist()
    assert all("ema_decay" not in item["parameters"] for item in prior)
    assert by_number(wider)["number"].tolist() == [0, 1]


def test_several_objectives_have_a_pareto_set(studies: Any) -> None:
    trials = by_number(studies["two"])
    assert trials["pareto"].notna().all()
    best = trials[trials["pareto"]]
    for row in best.itertuples():
        better = (trials["val_map"] >= row.val_map) & (
            trials["seconds_per_epoch"] <= row.seconds_per_epoch
        )
        assert trials[better]["number"].tolist() == [row.number]
    assert trials.loc[trials["val_map"].idxmax(), "pareto"]
    assert trials.loc[trials["seconds_per_epoch"].idxmin(), "pareto"]


def test_a_budget_ends_the_search_before_it_is_overdrawn(studies: Any, summaries: Any) -> None:
    trials = by_number(studies["poor"])
    assert next(entry for entry in summaries[1] if entry["name"] == "poor")["out_of_budget"]
    assert 1 <= len(trials) < 30
    assert set(trials["state"]) == {"COMPLETE"}
    hours = trials["duration_s"] / 3600
    assert trials["gpu_hours"].to_numpy() == pytest.approx(hours.to_numpy())
    assert trials["cost"].to_numpy() == pytest.approx(trials["duration_s"].to_numpy())
    cut_off = studies["poor"].record.get("unfinished_gpu_hours", 0.0) * 3600
    assert trials["cost"].sum() + cut_off <= SECONDS_OF_GPU + 1  # a stop takes a moment
    if len(trials) > 1:  # another one would not have fitted
        assert trials["cost"].sum() + cut_off + trials["cost"].mean() > 0.9 * SECONDS_OF_GPU


def test_time_runs_out_and_the_study_resumes_later(studies: Any, summaries: Any) -> None:
    first, second = (entry for entry in summaries[1] if entry["name"] == "late")
    assert first["out_of_budget"]
    ended = [n for kind, n in first["events"] if kind == "TrialEnded"]
    assert len(ended) < 200
    assert not second["out_of_budget"]
    trials = by_number(studies["late"])
    assert trials["number"].tolist() == list(range(max(8, max(ended, default=0) + 1)))
    assert set(trials["state"]) == {"COMPLETE"}  # with those that were cut off
    both = by_number(studies["plain"]).merge(trials, on="number", suffixes=("", "_late"))
    assert both["val_map"].tolist() == both["val_map_late"].tolist()


def test_time_runs_out_between_folds_and_the_study_resumes_later(
    studies: Any, summaries: Any
) -> None:
    first, second = (entry for entry in summaries[1] if entry["name"] == "folded-late")
    assert first["out_of_budget"] and not second["out_of_budget"]
    ended = {number for kind, number in first["events"] if kind == "TrialEnded"}
    epochs = Counter(number for kind, number in first["events"] if kind == "EpochDone")
    for number in epochs.keys() - ended:  # the last epoch may have no checkpoint yet
        assert epochs[number] - 1 <= second["again"].count(number) <= epochs[number]
    study = studies["folded-late"]
    trials = by_number(study)
    assert trials["number"].tolist() == list(range(len(trials))) and len(trials) >= 4
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}  # between two folds
    grid = study.folds.groupby("number")[["fold", "epoch"]].apply(
        lambda f: list(map(tuple, f.values))
    )
    for row in trials.itertuples():
        epochs = range(1, EPOCHS + 1)
        assert sorted(grid[row.number]) == [(fold, e) for fold in range(row.folds) for e in epochs]
        assert (row.folds == 3) == (row.state == "COMPLETE")
    whole = by_number(studies["folded"])
    pd.testing.assert_frame_equal(trials[:4].drop(columns=CLOCK), whole.drop(columns=CLOCK))
    numbers = list(range(4))
    pd.testing.assert_frame_equal(
        *(figures(studies[n], numbers) for n in ("folded-late", "folded"))
    )


def test_checkpoints_of_trials_do_not_stay(studies: Any) -> None:
    for study in studies.values():
        assert not list(study.folder.rglob("epoch-*"))
