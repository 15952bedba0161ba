"""Importances: right where the answer is known, equal to Optuna's, and silent where trials are too few."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest

from bbam_ray.report.importance import FEWEST_TRIALS, fanova, importance_section, importances
from bbam_ray.report.report_data import ReportData


def test_of_a_sum_each_setting_has_its_share_of_the_variance() -> None:
    units = np.random.default_rng(0).random((400, 3))
    shares = fanova(units, 2 * units[:, 0] + units[:, 1], [None, None, None])
    # Variances 4/12 and 1/12.
    np.testing.assert_allclose(shares.mean(axis=0), [0.8, 0.2, 0.0], atol=0.03)
    assert (shares.std(axis=0) < 0.05).all()


def test_a_choice_counts_like_a_number_and_a_constant_metric_has_no_cause() -> None:
    generator = np.random.default_rng(1)
    units = np.stack([generator.integers(3, size=200) / 2, generator.random(200)], axis=1)
    shares = fanova(units, (units[:, 0] == 0.5).astype(float), [3, None])
    assert shares[:, 0].min() > 0.9 and shares[:, 1].max() < 0.1
    assert fanova(units, np.ones(200), [3, None]).max() == 0


def test_what_only_settings_together_explain_is_nobodys() -> None:
    units = np.random.default_rng(2).random((400, 2))
    shares = fanova(units, np.sign((units[:, 0] - 0.5) * (units[:, 1] - 0.5)), [None, None])
    assert shares.mean(axis=0).max() < 0.15


def test_optunas_own_evaluator_finds_the_same() -> None:
    units = np.random.default_rng(3).random((120, 3))
    values = 3 * units[:, 0] + np.square(units[:, 1]) + 0.05 * units[:, 2]
    mine = fanova(units, values, [None] * 3).mean(axis=0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    spaces = {name: optuna.distributions.FloatDistribution(0, 1) for name in "abc"}
    study.add_trials(
        optuna.trial.create_trial(
            params=dict(zip("abc", map(float, row), strict=True)), distributions=spaces, value=value
        )
        for row, value in zip(units, values, strict=True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        theirs = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    np.testing.assert_allclose(mine / mine.sum(), [theirs[name] for name in "abc"], atol=0.05)


def test_the_setting_that_decides_a_study_is_found_with_its_uncertainty(rich: Path) -> None:
    data = ReportData(rich)
    assert len(data.complete) == 12
    found, too_few = importances(data)
    # Trial 1 alone, at another scale, is far above; else the margin decides.
    assert {item.name for item in found[:2]} == {"scale", "margin"}
    assert all(0 <= item.mean <= 1 and item.deviation >= 0 for item in found)
    # Searched only where balance is on: 8 of the 12 trials.
    by_name = {item.name: item for item in found}
    assert too_few == [] and by_name["clamp"].trials == 8 and by_name["margin"].trials == 12


@pytest.mark.parametrize("trials", [FEWEST_TRIALS, FEWEST_TRIALS + 1])
def test_few_trials_give_a_sentence_and_not_noise(
    trials: int, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "few", trials=trials, labels=1, pruned=0)
    group = importance_section(ReportData(folder))
    assert group is not None
    if trials - 1 < FEWEST_TRIALS:
        assert not group.figures
        assert group.notes == [
            f"Too few trials: {trials - 1} complete; importance is shown for 8 or more."
        ]
    else:
        assert len(group.figures) == 1
        assert "clamp: used in fewer than 8 trials" in group.notes[0]
