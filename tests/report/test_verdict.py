"""The first sentence of a report is true in every state of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bbam_ray.report.report_data import ReportData
from bbam_ray.report.verdict import gain_sentence, verdict
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import FAILED, INTERRUPTED, RUNNING, StudyRecord
from bbam_ray.results.summary import Gain, gains


def gain_of(*differences: float) -> Gain:
    """The gain over the published settings, computed as a study does."""
    rows = [
        {"rank": rank, "answer": name, "seed": seed, "test_map": 0.5 + value}
        for seed, difference in enumerate(differences)
        for rank, name, value in ((1, "final", difference), (2, "published", 0.0))
    ]
    return Gain(**gains(rows)["published"])


@pytest.mark.parametrize(
    ("differences", "kind", "beginning"),
    [
        (
            (0.05, 0.06, 0.07),
            "good",
            "The search paid: the final answer is 6.0 points",
        ),
        (
            (0.05, -0.02, 0.0),
            "open",
            "It is open whether the search paid: the final answer is 1.0 points",
        ),
        (
            (-0.05, 0.02, 0.0),
            "open",
            "It is open whether the search paid: the final answer is 1.0 points",
        ),
        (
            (-0.05, -0.06, -0.07),
            "bad",
            "The search did not pay: the final answer is 6.0 points",
        ),
        ((0.0, 0.0), "bad", "The search did not pay: it equals the published settings in test mAP"),
        (
            (0.05,),
            "open",
            "The search seems to pay: the final answer is 5.0 points",
        ),
        ((-0.05,), "open", "The search does not seem to pay: the final answer is 5.0 points"),
    ],
)
def test_a_gain_counts_only_beyond_the_noise(
    differences: tuple[float, ...], kind: str, beginning: str
) -> None:
    gain = gain_of(*differences)
    known, sentence = gain_sentence(gain)
    assert known == kind
    assert sentence.startswith(beginning)
    assert ("below the published" in sentence) == (gain.difference < 0)
    assert ("within the noise" in sentence) == (kind == "open" and len(differences) > 1)
    if len(differences) > 1:
        assert gain.low is not None and gain.high is not None
        interval = f"(95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}, "
        assert f"{interval}{len(differences)} seeds)" in sentence
    else:
        assert "with one seed, so the noise is not known" in sentence


@pytest.fixture()
def study(write_study: Callable[..., Path], tmp_path: Path) -> Callable[..., ReportData]:
    """Writes a study of four trials and reads it; entries of its record can be changed."""

    def make(
        *, trials: dict[str, Any] | None = None, confirmed: bool = True, **entries: Any
    ) -> ReportData:
        folder = write_study(
            tmp_path / "study", **{"trials": 4, "pruned": 0, "labels": 1, **(trials or {})}
        )
        if not confirmed:
            (folder / "confirm.parquet").unlink()
        StudyRecord.open(folder).update(**entries)
        return ReportData(folder)

    return make


def test_a_measured_gain_is_the_headline_and_its_interval_is_explained(
    study: Callable[..., ReportData],
) -> None:
    stored = gain_of(0.05, 0.06, 0.07).__dict__
    baseline = {**stored, "over": "logistic"}
    result = verdict(study(gain={"published": stored, "baseline": baseline}))
    assert result.kind == "good" and result.headline.startswith("The search paid")
    assert result.details[0].startswith("Gain over the baseline logistic: +6.0 points")
    assert "the seeds of training, not the choice of samples" in result.note
    assert dict(result.facts) | {"time": ""} == {
        "method": "bbam",
        "data set": "digits",
        "labelled": "5 % of the training samples",
        "trials": "4 of 4 (1 failed)",
        "settings searched": "5",
        "time": "",
    }


def test_seeds_after_that_of_the_search_have_labelled_samples_of_their_own(
    study: Callable[..., ReportData],
) -> None:
    stored = gain_of(0.05, 0.06, 0.07).__dict__
    note = verdict(study(gain={"published": stored}, seed=-1)).note  # the rows have seeds 0, 1, 2
    assert "and the choice of labelled samples, not that of test samples" in note


def test_without_a_measurement_the_gain_is_not_known(study: Callable[..., ReportData]) -> None:
    data = study(confirmed=False)
    rows = pq.read_table(data.folder / "trials.parquet").to_pylist()
    published = next(row["val_map"] for row in rows if row["number"] == 0)
    result = verdict(data)
    assert (result.kind, result.note) == ("open", "")
    assert result.headline.startswith("Not confirmed: nothing was measured on test data")
    assert result.details == [
        "On validation data, trial 1 is the best so far, val_map 0.9500; the published settings (trial 0) "
        f"reach {published:.4f}."
    ]


def test_a_confirmation_whose_runs_failed_is_said_to_have_failed(
    study: Callable[..., ReportData],
) -> None:
    data = study()
    store = StudyStore(data.folder, {})
    for row in store.confirm.rows():
        store.confirm.put([row | {"test_map": None, "error": "RuntimeError: out of memory"}])
    store.flush()
    headline = verdict(ReportData(data.folder)).headline
    assert headline == "Not confirmed: the runs on test data failed, so the gain is not known."


def test_an_answer_without_published_settings_beside_it(study: Callable[..., ReportData]) -> None:
    result = verdict(study())
    assert result.headline.startswith(
        "The final answer reaches test mAP 0.7600 (95 % interval 0.73"
    )
    assert result.headline.endswith("so the gain is not known.")


@pytest.mark.parametrize(
    ("status", "headline"),
    [
        (RUNNING, "The search was running when this page was written: 4 of 9 trials had ended."),
        (
            INTERRUPTED,
            "The search was interrupted after 4 of 9 trials; what follows is the result until then.",
        ),
        (FAILED, "The search failed after 4 of 9 trials; what follows is the result until then."),
    ],
)
def test_an_unfinished_study_says_so_and_claims_no_gain(
    status: str, headline: str, study: Callable[..., ReportData]
) -> None:
    stored = {"published": gain_of(0.05, 0.06).__dict__, "baseline": gain_of(0.05, 0.06).__dict__}
    result = verdict(study(status=status, num_samples=9, gain=stored))  # of an earlier, shorter run
    assert (result.kind, result.headline) == ("open", headline)
    assert len(result.details) == 1 and result.details[0].startswith(
        "On validation data, trial 1 is"
    )
    assert "paid" not in result.headline


def test_a_study_without_a_complete_trial_has_no_result(study: Callable[..., ReportData]) -> None:
    failed = study(trials={"failed": 4}, confirmed=False, status=FAILED)
    result = verdict(failed)
    assert (result.kind, result.headline) == (
        "bad",
        "The search has no result: no trial completed, all 4 failed.",
    )
    assert result.details == ["First error: RuntimeError: out of memory"]


def test_pruned_trials_alone_are_no_result(study: Callable[..., ReportData]) -> None:
    pruned = study(trials={"failed": 1, "pruned": 3}, confirmed=False, status=INTERRUPTED)
    headline = "The search was interrupted after 4 of 4 trials; none of them completed."
    assert verdict(pruned).headline == headline
    StudyRecord.open(pruned.folder).update(status=FAILED)
    headline = "The search has no result: no trial completed, 1 of 4 failed."
    assert verdict(ReportData(pruned.folder)).headline == headline


def test_several_objectives_name_the_pareto_front(study: Callable[..., ReportData]) -> None:
    data = study(confirmed=False)
    store = StudyStore(data.folder, {"scale": "float"})
    for row in store.trials.rows():
        store.trials.put([row | {"pareto": row["number"] in (0, 1)}])
    store.flush()
    record = StudyRecord.open(data.folder)
    record.update(space={**record.content["space"], "also": [["seconds_per_epoch", "min"]]})
    assert verdict(ReportData(data.folder)).details[-1] == (
        "2 trials are on the Pareto front of val_map, seconds_per_epoch: no other trial is better in "
        "every objective. Trial 1 was chosen by val_map."
    )


@pytest.mark.parametrize(
    ("confirmed", "status", "headline"),
    [
        (True, None, "The run reaches test mAP"),
        (False, None, "The run reaches val_map"),
        (False, RUNNING, "The run was running when this page was written."),
        (False, INTERRUPTED, "The run was interrupted; what follows"),
    ],
)
def test_a_single_run(
    confirmed: bool, status: str | None, headline: str, study: Callable[..., ReportData]
) -> None:
    space = {"metric": "val_map", "mode": "max", "parameters": {}, "fixed": {}}
    trials = {"trials": 1, "failed": 0, "confirmed": ()}
    entries = {} if status is None else {"status": status}
    result = verdict(
        study(trials=trials, confirmed=confirmed, space=space, num_samples=1, **entries)
    )
    assert result.headline.startswith(headline)
    assert "search" not in result.headline
