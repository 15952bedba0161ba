"""Statistics over the seeds of confirmed configurations, and durations as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Confirmed:
    """A test metric of one confirmed configuration over seeds.

    Args:
        rank: of the answer, 1 for the final one.
        number: of its trial; negative for a baseline.
        seeds: number of seeds.
        mean: over seeds.
        deviation: sample standard deviation; None for a single seed.
        kind: of the answer: "final", "trial", "published" or the name of a baseline; None in older tables.
    """

    rank: int
    number: int
    seeds: int
    mean: float
    deviation: float | None
    kind: str | None = None

    @property
    def title(self) -> str:
        """The name of the answer in tables."""
        if self.kind in (None, "trial"):
            return f"trial {self.number}"
        titles = {"final": "final answer", "published": "published settings"}
        return titles.get(self.kind or "", str(self.kind))

    @property
    def standard_error(self) -> float | None:
        return None if self.deviation is None else self.deviation / sqrt(self.seeds)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean over seeds (Student's t), cut at 0 and 1.

        All metrics lie in [0, 1], and so does their mean: cutting keeps the coverage of the interval.
        """
        error = self.standard_error
        return None if error is None else _interval(self.mean, error, self.seeds, lowest=0.0)


def confirmed_metrics(
    rows: Iterable[Mapping[str, Any]], metric: str = "test_map"
) -> list[Confirmed]:
    """Mean and deviation over seeds for each configuration, ordered by rank.

    Args:
        rows: of ``confirm.parquet``. Failed runs and configurations without a rank are ignored.
        metric: column.
    """
    groups: dict[tuple[int, int, str | None], list[float]] = {}
    for row in rows:
        value = row[metric]
        ranked = row["rank"] is not None and row["rank"] == row["rank"]
        if ranked and value is not None and value == value:
            stored = row.get("answer")
            known = stored if isinstance(stored, str) else None  # null is NaN in pandas
            key = (int(row["rank"]), row["number"], known)
            groups.setdefault(key, []).append(value)
    return [
        Confirmed(rank, number, len(v), fmean(v), stdev(v) if len(v) > 1 else None, kind)
        for (rank, number, kind), v in sorted(groups.items(), key=lambda item: item[0][:2])
    ]


def confirmed_folder(row: Any) -> str:
    """Name of the folder, in ``checkpoints``, of the model of a row of ``confirm.parquet``.

    Args:
        row: a mapping from columns to values.
    """
    name = "published" if row.get("answer") == "published" else row["trial_id"]
    return f"confirm-{name}-seed{row['seed']}"


@dataclass(frozen=True)
class Gain:
    """How much the final answer of a study gained in test mAP over something else.

    Args:
        over: "published" or the name of a baseline.
        difference: mean over seeds of final answer - other.
        low, high: 95 % interval over seeds (Student's t, paired by seed), within [-1, 1]; None for a
            single seed. It covers the seeds of training, not the choice of labelled or test samples.
        seeds: number of seeds.
    """

    over: str
    difference: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def sentence(self) -> str:
        """The gain in words, in points of test mAP."""
        over = "the published settings" if self.over == "published" else f"the baseline {self.over}"
        points = f"{100 * self.difference:+.1f} points"
        if self.low is None or self.high is None:
            points += " of test mAP, one seed"
        else:
            points += f" of test mAP [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        if self.difference <= 0:
            return f"no gain over {over}: {points}"
        if self.low is not None and self.low <= 0:
            return f"gain over {over}, within the noise of {self.seeds} seeds: {points}"
        return f"gain over {over}: {points}"


def gains(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Gains of the final answer over the published settings and over the best baseline.

    Args:
        rows: of ``confirm.parquet``.

    Returns:
        The fields of a ``Gain`` for "published" and "baseline", as far as both sides were measured. The
        best baseline is the one with the highest test mAP, so the comparison favours it.
    """
    by_answer: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["rank"] is not None and row["test_map"] is not None and row["answer"]:
            by_answer.setdefault(row["answer"], {})[row["seed"]] = row["test_map"]
    final = by_answer.pop("final", {})
    published = by_answer.pop("published", {})
    by_answer.pop("trial", None)
    result = {}
    if final and published:
        pairs = [final[seed] - published[seed] for seed in final if seed in published]
        if pairs:
            result["published"] = asdict(_gain("published", pairs))
    if final and by_answer:
        name = max(by_answer, key=lambda each: fmean(by_answer[each].values()))
        value = fmean(by_answer[name].values())
        pairs = [each - by_answer[name].get(seed, value) for seed, each in final.items()]
        result["baseline"] = asdict(_gain(name, pairs))
    return result


def gain_sentences(record: Mapping[str, Any]) -> list[str]:
    """What the final answer of a study gained, over the published settings and the best baseline."""
    stored = record.get("gain") or {}
    return [Gain(**stored[key]).sentence for key in ("published", "baseline") if key in stored]


def _gain(over: str, pairs: list[float]) -> Gain:
    mean = fmean(pairs)
    if len(pairs) == 1:
        return Gain(over, mean, None, None, 1)
    low, high = _interval(mean, stdev(pairs) / sqrt(len(pairs)), len(pairs), lowest=-1.0)
    return Gain(over, mean, low, high, len(pairs))


def _interval(mean: float, error: float, count: int, *, lowest: float) -> tuple[float, float]:
    """95 % interval of a mean of ``count`` values with a standard error, within [``lowest``, 1]."""
    from scipy.special import stdtrit  # takes most of a second to load

    half = float(stdtrit(count - 1, 0.975)) * error
    return max(lowest, mean - half), min(1.0, mean + half)


def duration(seconds: float) -> str:
    """A duration as text: "2h05m", "5m07s" or "9s"."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
