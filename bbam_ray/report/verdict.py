"""The first sentences of a report: what the study shows, in every state that it can be in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from bbam_ray.errors import brief
from bbam_ray.report.report_data import ReportData
from bbam_ray.results.schemas import FAILED
from bbam_ray.results.study import FAILED as STUDY_FAILED
from bbam_ray.results.study import INTERRUPTED, RUNNING
from bbam_ray.results.summary import Confirmed, Gain, confirmed_metrics, duration

#: The status of a study that has not ended as planned: its stored gains may be those of an earlier result.
UNFINISHED = (RUNNING, INTERRUPTED, STUDY_FAILED)
_PAID, _OPEN, _BAD = "good", "open", "bad"


@dataclass(frozen=True)
class Verdict:
    """What ``_first_screen.html.j2`` shows first.

    Args:
        headline: the result in one sentence.
        kind: "good", "open" (not known, or not finished) or "bad".
        details: further sentences.
        note: what the interval in the headline means; empty without one.
        facts: what was searched, each a name and a text.
    """

    headline: str
    kind: str
    details: Sequence[str]
    note: str
    facts: Sequence[tuple[str, str]]


def verdict(data: ReportData) -> Verdict:
    """The verdict on a study or run in its present state."""
    kind, headline = _headline(data)
    note = _interval_note(data) if "interval" in headline else ""
    return Verdict(headline, kind, list(_details(data)), note, _facts(data))


def _interval_note(data: ReportData) -> str:
    """What the interval covers: seeds start at that of the search if labelled samples are the same."""
    seeds = [row["seed"] for row in data.confirm_rows if row["rank"] == 1]
    same = data.is_run or min(seeds, default=0) == data.record.get("seed", 0)
    covered = (
        "the seeds of training, not the choice of samples"
        if same
        else "the seeds of training and the choice of labelled samples, not that of test samples"
    )
    return f"The interval covers {covered}. Settings were chosen on validation data only."


def gain_over_published(data: ReportData) -> Gain | None:
    """The stored gain of the final answer over the published settings; None if it was not measured."""
    stored = (data.record.get("gain") or {}).get("published")
    return None if stored is None else Gain(**stored)


def _headline(data: ReportData) -> tuple[str, str]:
    """Kind and sentence."""
    status, what = data.record["status"], "run" if data.is_run else "search"
    ended = len(data.trials)
    of = f"{ended} of {data.record.get('num_samples') or ended} trials"
    if status == RUNNING:
        so_far = "" if data.is_run else f": {of} had ended"
        return _OPEN, f"The {what} was running when this page was written{so_far}."
    if data.best is None:
        if data.is_run:
            return _BAD, "The run failed."
        failed = int((data.trials.state == FAILED).sum())
        if status == INTERRUPTED:
            return _BAD, f"The search was interrupted after {of}; none of them completed."
        all_failed = f"all {ended} failed" if failed == ended else f"{failed} of {ended} failed"
        return _BAD, f"The search has no result: no trial completed, {all_failed}."
    if status in UNFINISHED:
        event = "was interrupted" if status == INTERRUPTED else "failed"
        after = "" if data.is_run else f" after {of}"
        return _OPEN, f"The {what} {event}{after}; what follows is the result until then."
    if data.is_run:
        return _run_headline(data)
    gain = gain_over_published(data)
    return _unmeasured_gain(data) if gain is None else gain_sentence(gain)


def gain_sentence(gain: Gain) -> tuple[str, str]:
    """Kind and sentence of a gain over the published settings in test mAP."""
    points = f"{abs(100 * gain.difference):.1f} points of test mAP"
    low, high = gain.low, gain.high
    known = low is not None and high is not None
    interval = ""
    if low is not None and high is not None:
        interval = f" (95 % interval {100 * low:+.1f} to {100 * high:+.1f}, {gain.seeds} seeds)"
    if gain.difference == 0:
        return (
            _BAD,
            f"The search did not pay: it equals the published settings in test mAP{interval}.",
        )
    above = gain.difference > 0
    relation = "above" if above else "below"
    text = f"the final answer is {points} {relation} the published settings{interval}"
    if not known:
        start = "The search seems to pay" if above else "The search does not seem to pay"
        return _OPEN, f"{start}: {text}, with one seed, so the noise is not known."
    assert low is not None and high is not None
    if low > 0:
        return _PAID, f"The search paid: {text}."
    if high < 0:
        return _BAD, f"The search did not pay: {text}."
    return _OPEN, f"It is open whether the search paid: {text}, which is within the noise."


def _run_headline(data: ReportData) -> tuple[str, str]:
    confirmed = _final(data)
    if confirmed is not None:
        return _PAID, f"The run reaches {_measured(confirmed)}."
    value = (
        f"{data.metric} {data.best[data.metric]:.4f}" if pd.notna(data.best[data.metric]) else ""
    )
    reached = f"reaches {value} on validation data" if value else "is complete"
    return _OPEN, f"The run {reached}; it was not measured on test data."


def _unmeasured_gain(data: ReportData) -> tuple[str, str]:
    """Kind and sentence of a complete search that was not compared with the published settings."""
    confirmed = _final(data)
    if confirmed is not None:
        return _OPEN, (
            f"The final answer reaches {_measured(confirmed)}; the published settings were not measured "
            "on test data, so the gain is not known."
        )
    if len(data.confirm_rows):
        return _OPEN, "Not confirmed: the runs on test data failed, so the gain is not known."
    return _OPEN, (
        "Not confirmed: nothing was measured on test data, so whether the search paid is not known."
    )


def _final(data: ReportData) -> Confirmed | None:
    confirmed = confirmed_metrics(data.confirm_rows)
    return next((each for each in confirmed if each.rank == 1), None)


def _measured(confirmed: Confirmed) -> str:
    """ "test mAP 0.8524 (95 % interval 0.8158 to 0.8890, 3 seeds)"."""
    if confirmed.interval is None:
        return f"test mAP {confirmed.mean:.4f} (one seed)"
    low, high = confirmed.interval
    interval = f"95 % interval {low:.4f} to {high:.4f}, {confirmed.seeds} seeds"
    return f"test mAP {confirmed.mean:.4f} ({interval})"


def _details(data: ReportData) -> Iterator[str]:
    """Sentences below the headline."""
    record, complete = data.record, data.record["status"] not in UNFINISHED
    if complete and (stored := (record.get("gain") or {}).get("baseline")):
        sentence = Gain(**stored).sentence
        yield f"{sentence[0].upper()}{sentence[1:]}."
    if data.best is None:
        errors = [e for e in data.trials.get("error", ()) if isinstance(e, str)]
        if errors:
            yield f"First error: {brief(errors[0], 200)}"
    elif not data.is_run and (_final(data) is None or not complete):
        yield _validation_sentence(data)
    yield from _pareto_sentence(data)


def _validation_sentence(data: ReportData) -> str:
    best, metric, published = data.best, data.metric, data.published
    text = (
        f"On validation data, trial {best.number} is the best so far, {metric} {best[metric]:.4f}"
    )
    if published is None or pd.isna(published[metric]):
        return f"{text}."
    if published.number == best.number:
        return f"{text}; these are the published settings."
    return f"{text}; the published settings (trial 0) reach {published[metric]:.4f}."


def _pareto_sentence(data: ReportData) -> Iterator[str]:
    also = data.space.get("also") or []
    if not also or data.best is None or "pareto" not in data.trials:
        return
    front = int(data.complete["pareto"].fillna(False).astype(bool).sum())
    names = ", ".join([data.metric, *(name for name, _ in also)])
    if front:
        trials = "1 trial is" if front == 1 else f"{front} trials are"
        yield (
            f"{trials} on the Pareto front of {names}: no other trial is better in every objective. "
            f"Trial {data.best.number} was chosen by {data.metric}."
        )


def _facts(data: ReportData) -> list[tuple[str, str]]:
    record = data.record
    facts = [("method", str(record["method"])), ("data set", str(record["dataset"]))]
    if (fraction := labeled_fraction(data)) is not None:
        facts.append(("labelled", f"{100 * fraction:.3g} % of the training samples"))
    if not data.is_run:
        ended = len(data.trials)
        text = f"{ended} of {record.get('num_samples') or ended}"
        failed = int((data.trials.state == FAILED).sum())
        text += f" ({failed} failed)" if failed else ""
        folds = (record.get("settings") or {}).get("folds") or 1
        text += f", {folds} folds each" if folds > 1 else ""
        facts.append(("trials", text))
        facts.append(("settings searched", str(len(data.settings))))
    facts.append(("time", _time(data)))
    return facts


def labeled_fraction(data: ReportData) -> float | None:
    """Share of the training samples whose labels were used; None if it is not recorded."""
    value = data.best_setting("labeled_fraction")
    if value is None or pd.isna(value):
        value = (data.record.get("pace") or {}).get("labeled_fraction")
    return None if value is None else float(value)


def _time(data: ReportData) -> str:
    start, end = data.record["started_at"], data.record["ended_at"]
    began = pd.Timestamp(start)
    last = pd.Timestamp(end) if end else datetime.now(UTC)
    text = duration((last - began).total_seconds())
    return f"{text}, {'ended' if end else 'written'} {last:%Y-%m-%d %H:%M} UTC"
