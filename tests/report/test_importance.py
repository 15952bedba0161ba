"""Importance: correct for known functions, equal to that of Optuna, and not shown for too few trials."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest

from bbam_ray.report.importance import FEWEST_TRIALS, fanova, importance_section, importances
from bbam_ray.report.report_data import ReportData


def test_the_settings_of_a_sum_have_their_shares_of_the_variance() -> None:
    units = np.random.default_rng(0).random((400, 3))
    shares = fanova(units, 2 * units[:, 0] + units[:, 1], [None, None, None])
    # Variances 4/12 and 1/12.
    np.testing.assert_allclose(shares.mean(axis=0), [0.8, 0.2, 0.0], atol=0.03)
    assert (shares.std(axis=0) < 0.05).all()


def test_choices_work_like_numbers_and_a_constant_metric_has_no_importance() -> None:
    generator = np.random.default_rng(1)
    units = np.stack([generator.integers(3, size=200) / 2, generator.random(200)], axis=1)
    shares = fanova(units, (units[:, 0] == 0.5).astype(float), [3, None])
    assert shares[:, 0].min() > 0.9 and shares[:, 1].max() < 0.1
    assert fanova(units, np.ones(200), [3, None]).max() == 0


def test_an_interaction_belongs_to_no_single_setting() -> None:
    units = np.random.default_rng(2).random((400, 2))
    shares = fanova(units, np.sign((units[:, 0] - 0.5) * (units[:, 1] - 0.5)), [None, None])
    assert shares.mean(axis=0).max() < 0.15


def test_it_agrees_with_optuna() -> None:
    units = np.random.default_rng(3).random((120, 3))
    values = 3 * units[:, 0] + np.square(units[:, 1]) + 0.05 * units[:, 2]
    ours = fanova(units, values, [None] * 3).mean(axis=0)
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
    np.testing.assert_allclose(ours / ours.sum(), [theirs[name] for name in "abc"], atol=0.05)


def test_the_important_settings_of_a_study_come_first(rich: Path) -> None:
    data = ReportData(rich)
    assert len(data.complete) == 12
    results, too_few = importances(data)
    # Trial 1 alone, at another scale, is far above; else the margin decides.
    assert {item.name for item in results[:2]} == {"scale", "margin"}
    assert all(0 <= item.mean <= 1 and item.deviation >= 0 for item in results)
    # Searched only where balance is on: 8 of the 12 trials.
    by_name = {item.name: item for item in results}
    assert too_few == [] and by_name["clamp"].trials == 8 and by_name["margin"].trials == 12


@pytest.mark.parametrize("trials", [FEWEST_TRIALS, FEWEST_TRIALS + 1])
def test_too_few_trials_give_a_note_instead_of_a_figure(
    trials: int, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "few", trials=trials, labels=1, pruned=0)
    section = importance_section(ReportData(folder))
    assert section is not None
    if trials - 1 < FEWEST_TRIALS:
        assert not section.figures
        assert section.notes == [
            f"Too few trials: {trials - 1} complete; importance is shown for 8 or more."
        ]
    else:
        assert len(section.figures) == 1
        assert "clamp: used in fewer than 8 trials" in section.notes[0]
