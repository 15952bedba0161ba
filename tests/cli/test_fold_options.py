"""The options of ``tune`` for folds and the final answer: defaults, plans and refusals, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.commands import study_setup
from bbam_ray.commands.search_rules import TARGET_ERROR, SearchRules, default_folds
from bbam_ray.data.sampling.splits import Split
from bbam_ray.errors import UsageError
from bbam_ray.scale.study.final_kinds import Final
from bbam_ray.scale.study.plan import StudyPlan

SMALL = ["--set", "scenes=60", "--set", "test_scenes=20", "--set", "labeled_fraction=0.5"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def dry(*arguments: str) -> tuple[StudyPlan | None, str]:
    """The plan that a command would carry out, if it is not refused, and what it prints."""
    studies: list[Any] = []
    prepare = study_setup.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_setup, "prepare", lambda *a: studies.append(prepare(*a)) or studies[-1])
        ended = CliRunner().invoke(app, ["tune", "--dry-run", *SMALL, *arguments])
    assert ended.exit_code == (0 if studies else 2), ended.output
    return (studies[0].plan if studies else None), ended.output


def plan(*arguments: str) -> StudyPlan:
    made, output = dry(*arguments)
    assert made is not None, output
    return made


def split_with(positives: int, pool: int) -> tuple[np.ndarray, Split]:
    """Labels and a split whose 2 validation samples have this number of positives together."""
    labels = np.zeros((pool + 5, positives or 1), dtype=np.uint8)
    labels[0, :positives] = 1
    labels[5:] = 1  # neither training nor unlabelled samples count
    rows = np.arange(pool)
    return labels, Split(rows[2:], rows[:2], np.arange(pool, pool + 5))


def test_one_validation_set_is_enough_where_it_has_enough_positives() -> None:
    enough = int(np.ceil((0.6 / TARGET_ERROR) ** 2))
    assert enough == 1600
    assert default_folds(*split_with(enough, 1000)) == 1
    assert default_folds(*split_with(enough - 1, 1000)) == 5


@pytest.mark.parametrize(
    ("pool", "folds"), [(1000, 5), (25, 5), (24, 4), (15, 3), (10, 2), (9, 1), (4, 1)]
)
def test_every_fold_has_at_least_five_samples(pool: int, folds: int) -> None:
    assert default_folds(*split_with(1, pool)) == folds


def test_validation_samples_without_positives_need_folds() -> None:
    assert default_folds(*split_with(0, 100)) == 5


def test_reshuffled_validation_samples_need_one_fold_and_a_single_model() -> None:
    made = plan("--set", "reshuffle=true")
    assert made.folds == 1 and made.final is Final.single
    for arguments in (("--folds", "3"), ("--final", "best"), ("--final", "soup")):
        refused, output = dry("--set", "reshuffle=true", *arguments)
        assert refused is None and "reshuffle" in output and "leave reshuffle out" in output


def test_a_small_pool_is_searched_with_folds_and_answered_by_an_ensemble() -> None:
    made = plan()
    assert made.folds == 5 and made.final is Final.best and made.same_pool
    assert made.baselines == ("logistic", "propagation", "logistic+propagation")
    assert made.published and made.with_models
    assert made.settings["folds"] == 5 and made.stopping.folds == 5


def test_the_number_of_folds_is_that_of_the_flag_or_of_the_setting() -> None:
    single = plan("--folds", "1")
    assert (single.folds, single.final, single.with_models) == (1, Final.single, False)
    assert plan("--folds", "3").folds == 3
    assert plan("--set", "folds=4").folds == 4


def test_folds_are_counted_in_what_is_shown() -> None:
    made, shown = dry("--folds", "3", "--num-samples", "4", "--confirm-seeds", "2")
    assert "4 trials of 3 folds" in shown
    assert made is not None
    # 2 published, and the folds of the answer with a second seed.
    assert made.runs_after_search == 2 + 2 * 3 + 3 and made.runs == 12 + 11
    single = plan("--folds", "1", "--num-samples", "4", "--confirm-seeds", "2")
    assert single.runs_after_search == 2 + 2 and single.runs == 4 + 4


@pytest.mark.parametrize("kind", list(Final))
def test_the_kind_of_the_final_answer_can_be_chosen(kind: Final) -> None:
    made = plan("--folds", "3", "--final", str(kind))
    assert made.final is kind and made.with_models == (kind is not Final.single)


def test_new_labelled_samples_for_each_seed_leave_a_single_model() -> None:
    made = plan("--confirm-pools", "new")
    assert made.folds == 5 and made.final is Final.single and not made.same_pool
    assert plan("--confirm-pools", "new", "--final", "single").final is Final.single


@pytest.mark.parametrize("kind", ["ensemble", "soup", "best"])
def test_fold_models_and_other_labelled_samples_exclude_each_other(kind: str) -> None:
    made, output = dry("--confirm-pools", "new", "--final", kind)
    assert made is None
    assert f"--final {kind}: fold models belong to the labelled samples of the search" in output
    assert "use --confirm-pools same, or --final single" in output


def test_baselines_can_be_left_out_and_are_not_compared_with_themselves() -> None:
    assert plan("--no-baselines").baselines == ()
    assert plan("--method", "logistic").baselines == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--folds", "0"), "--folds"),
        (("--folds", "31"), "folds = 31: only 30 samples are labelled; lower --folds or raise"),
        (("--final", "all"), "'all' is not one of"),
        (("--confirm-pools", "other"), "'other' is not one of"),
        (("--set", "fold=1"), "fold = 1: a search trains all folds"),
        (("--set", "fold=1", "--set", "folds=3"), "fold = 1: a search trains all folds; leave it"),
    ],
)
def test_wrong_values_are_refused(arguments: tuple[str, ...], message: str) -> None:
    made, output = dry(*arguments)
    assert made is None and message in " ".join(output.split())


def test_rules_in_python_are_checked_as_well() -> None:
    for wrong in ({"folds": 0}, {"final": "all"}, {"confirm_pools": "other"}):
        with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", "[-_]")):
            SearchRules(**wrong)
