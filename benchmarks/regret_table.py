"""Tables of ``benchmarks/regret.py``: means over study seeds, with paired intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t

from bbam_ray.methods import BASELINES
from benchmarks.page import write_section

_HEAD = (
    "| set | method | trials | seeds | final answer | - published | - best baseline "
    "| micro-F1 - old rule | calibration error (old rule) | networks |"
)


def interval(values: pd.Series) -> str:
    """Mean in points with its 95 % interval (Student's t)."""
    points = 100 * values.dropna().to_numpy(dtype=float)
    if not len(points):
        return ""
    mean = float(points.mean())
    if len(points) == 1:
        return f"{mean:+.1f}"
    error = float(points.std(ddof=1)) / len(points) ** 0.5
    half = float(t.ppf(0.975, len(points) - 1)) * error
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def best_baseline(rows: pd.DataFrame) -> pd.Series:
    """Test mAP of the baseline that is best in the mean over the seeds of a set: it favours baselines."""
    columns = [f"{name}_map" for name in BASELINES]
    return rows[rows[columns].mean().idxmax()]


def paired(rows: pd.DataFrame, new_budget: int, old_budget: int | None) -> pd.DataFrame:
    """Rows of the new rule by seed, with the values of the old rule as ``old_*``."""
    new = rows[(rows["rule"] == "folds") & (rows["budget"] == new_budget)].set_index("seed")
    old = rows[(rows["rule"] == "one fold") & (rows["budget"] == old_budget)].set_index("seed")
    names = ["test_map", "test_micro_f1", "calibration_error", "epochs"]
    return new.join(old[names].add_prefix("old_"))


def gains_table(data: pd.DataFrame) -> str:
    """A row per set, method and budget, at equal numbers of trials."""
    lines = [_HEAD, "|---" * 10 + "|"]
    groups: Any = data.groupby(["set", "method", "budget"], sort=False)
    for (name, method, budget), rows in groups:
        pairs = paired(rows, budget, budget)
        if pairs.empty:
            continue
        errors = f"{pairs['calibration_error'].mean():.3f}"
        if pairs["old_calibration_error"].notna().any():
            errors += f" ({pairs['old_calibration_error'].mean():.3f})"
        cells = [
            name,
            f"`{method}`",
            str(budget),
            str(len(pairs)),
            f"{pairs['test_map'].mean():.3f}",
            interval(pairs["test_map"] - pairs["published_map"]),
            interval(pairs["test_map"] - best_baseline(pairs)),
            interval(pairs["test_micro_f1"] - pairs["old_test_micro_f1"]),
            errors,
            f"{pairs['networks'].mean():.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost_table(data: pd.DataFrame) -> str:
    """The new rule against the old one with at least as many epochs."""
    lines = [
        "| set | method | seeds | trials, epochs with folds | trials, epochs with the old rule | test mAP "
        "difference |",
        "|---" * 6 + "|",
    ]
    groups: Any = data.groupby(["set", "method"], sort=False)
    for (name, method), rows in groups:
        budgets = sorted(rows["budget"].unique())
        for budget in budgets:
            spent = rows[(rows["rule"] == "folds") & (rows["budget"] == budget)]["epochs"].mean()
            old = rows[rows["rule"] == "one fold"].groupby("budget")["epochs"].mean()
            if old.empty or spent != spent:
                continue
            enough = old[old >= spent]
            other = int(enough.index[0]) if len(enough) else int(old.index[-1])
            pairs = paired(rows, budget, other)
            difference = interval(pairs["test_map"] - pairs["old_test_map"])
            cells = [name, f"`{method}`", str(int(pairs["old_test_map"].notna().sum()))]
            cells += [f"{budget}, {spent:.0f}", f"{other}, {old[other]:.0f}", difference]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(data: pd.DataFrame) -> str:
    """Means over all cells of the largest common budget."""
    lines = []
    for budget, rows in data[data["rule"] == "folds"].groupby("budget"):
        cells = rows.assign(gain=rows["test_map"] - rows["published_map"])
        means = 100 * cells.groupby(["set", "method"])["gain"].mean()
        lowest: Any = means.idxmin()
        lines.append(
            f"- {budget} trials, {len(means)} cells: final answer - published {means.mean():+.1f} "
            f"points of test mAP in the mean over cells; lowest cell {means.min():+.1f} "
            f"({lowest[0]}, {lowest[1]})."
        )
    return "\n".join(lines)


def short_table(data: pd.DataFrame, method: str = "bbam", budget: int = 8) -> str:
    """One method and budget, a row per set, for readers who want to know whether a search pays."""
    lines = [
        "| data set | study seeds | test mAP of the final answer | points over the published settings "
        "| points over the best baseline |",
        "|---" * 5 + "|",
    ]
    rows = data[(data["rule"] == "folds") & (data["method"] == method) & (data["budget"] == budget)]
    for name, cells in rows.groupby("set", sort=False):
        gains = [
            interval(cells["test_map"] - other)
            for other in (cells["published_map"], best_baseline(cells))
        ]
        mean = f"{cells['test_map'].mean():.3f}"
        lines.append("| " + " | ".join([str(name), str(len(cells)), mean, *gains]) + " |")
    return "\n".join(lines)


def write_tables(data: pd.DataFrame, page: Path | None, short_page: Path | None = None) -> None:
    """Print the tables, and write them between the markers ``regret`` of a page.

    Args:
        data: the stored rows.
        page: of all tables.
        short_page: gets the short table, between the markers ``gains``.
    """
    if data.empty:
        raise SystemExit("benchmarks/regret.parquet has no rows yet; run the benchmark first")
    text = "\n\n".join([summary(data), gains_table(data), cost_table(data)])
    print(text)
    if page:
        write_section(page, "regret", text)
    if short_page:
        write_section(short_page, "gains", short_table(data))
