"""What a study gained over the published settings and the best baseline, against scipy."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from bbam_ray.results.summary import (
    Confirmed,
    Gain,
    confirmed_folder,
    confirmed_metrics,
    gain_sentences,
    gains,
)


def rows(answer: Any, values: dict[int, float | None], rank: int | None = 1) -> list[Any]:
    return [
        {"rank": rank, "number": 0, "answer": answer, "seed": seed, "test_map": value}
        for seed, value in values.items()
    ]


FINAL = {1: 0.61, 2: 0.66, 3: 0.64}
PUBLISHED = {3: 0.60, 1: 0.58, 2: 0.65}


def test_the_gain_over_the_published_settings_is_paired_by_seed() -> None:
    gain = Gain(**gains(rows("final", FINAL) + rows("published", PUBLISHED, 2))["published"])
    test = stats.ttest_rel([FINAL[s] for s in FINAL], [PUBLISHED[s] for s in FINAL])
    low, high = test.confidence_interval(0.95)
    assert gain.over == "published" and gain.seeds == 3
    assert gain.difference == pytest.approx(0.08 / 3)
    assert (gain.low, gain.high) == (pytest.approx(low), pytest.approx(high))


def test_only_seeds_of_both_sides_are_compared() -> None:
    measured = rows("final", FINAL) + rows("published", {2: 0.6, 9: 0.1, 3: None}, 2)
    gain = Gain(**gains(measured)["published"])
    assert gain.difference == pytest.approx(0.06)
    assert (gain.seeds, gain.low, gain.high) == (1, None, None)
    assert "published" not in gains(rows("final", FINAL) + rows("published", {9: 0.1}, 2))


def test_the_best_baseline_is_compared_seed_by_seed_or_with_its_only_value() -> None:
    measured = rows("final", FINAL) + rows("propagation", {1: 0.60}, 3) + rows("logistic", {1: 0.5})
    gain = Gain(**gains(measured)["baseline"])
    interval = stats.ttest_1samp([v - 0.60 for v in FINAL.values()], 0).confidence_interval(0.95)
    assert (gain.over, gain.seeds) == ("propagation", 3)
    assert (gain.low, gain.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    by_seed = {seed: value - 0.01 for seed, value in FINAL.items()}
    gain = Gain(**gains(measured + rows("logistic+propagation", by_seed))["baseline"])
    assert gain.over == "logistic+propagation"
    assert gain.low == pytest.approx(0.01) and gain.high == pytest.approx(0.01)


def test_sides_that_were_not_measured_are_left_out() -> None:
    assert gains([]) == {}
    assert gains(rows("final", FINAL)) == {}
    assert gains(rows("published", PUBLISHED) + rows("logistic", {1: 0.5})) == {}
    assert list(gains(rows("final", FINAL) + rows("logistic", {1: 0.5}))) == ["baseline"]
    others = rows("trial", {1: 0.9}, 2) + rows(None, {1: 0.9}) + rows("logistic", {1: 0.9}, None)
    assert gains(rows("final", FINAL) + others) == {}


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [
        (
            Gain("published", 0.0123, 0.004, 0.0206, 3),
            "gain over the published settings: +1.2 points of test mAP [+0.4, +2.1]",
        ),
        (
            Gain("published", 0.01, -0.003, 0.023, 3),
            "gain over the published settings, within the noise of 3 seeds: +1.0 points of test mAP "
            "[-0.3, +2.3]",
        ),
        (
            Gain("logistic", -0.02, -0.03, -0.01, 3),
            "no gain over the baseline logistic: -2.0 points of test mAP [-3.0, -1.0]",
        ),
        (
            Gain("propagation", 0.02, None, None, 1),
            "gain over the baseline propagation: +2.0 points of test mAP, one seed",
        ),
        (
            Gain("propagation", 0.0, None, None, 1),
            "no gain over the baseline propagation: +0.0 points of test mAP, one seed",
        ),
    ],
)
def test_the_sentence_says_plainly_whether_there_is_a_gain(gain: Gain, sentence: str) -> None:
    assert gain.sentence == sentence


def test_sentences_come_from_the_record_of_a_study() -> None:
    measured = rows("final", FINAL) + rows("published", PUBLISHED, 2) + rows("logistic", {1: 0.7})
    first, second = gain_sentences({"gain": gains(measured)})
    assert first.startswith("gain over the published settings, within the noise of ")
    assert ": +2.7 points" in first
    assert second.startswith("no gain over the baseline logistic: -6.3 points")
    assert gain_sentences({}) == gain_sentences({"gain": None}) == []


def test_answers_of_the_same_trial_are_apart_and_have_titles() -> None:
    figures = confirmed_metrics(
        rows("final", FINAL) + rows("published", PUBLISHED, 2) + rows("logistic", {1: 0.5}, 3)
    )
    assert [(f.title, f.seeds) for f in figures] == [
        ("final answer", 3),
        ("published settings", 3),
        ("logistic", 1),
    ]
    titles = [Confirmed(1, 7, 1, 0.5, None, answer).title for answer in (None, "trial")]
    assert titles == ["trial 7", "trial 7"]


def test_rows_of_older_tables_and_of_pandas_have_no_answer() -> None:
    measured = rows(None, {1: 0.5}) + rows(float("nan"), {2: 0.7}) + rows(float("nan"), {3: 0.6})
    (figure,) = confirmed_metrics(measured)
    assert (figure.title, figure.seeds, figure.kind) == ("trial 0", 3, None)


def test_models_of_the_published_settings_have_a_folder_of_their_own() -> None:
    row = {"trial_id": "t00003", "seed": 4}
    assert confirmed_folder(row) == confirmed_folder(row | {"answer": "final"})
    assert confirmed_folder(row) == "confirm-t00003-seed4"
    assert confirmed_folder(row | {"answer": "published"}) == "confirm-published-seed4"
