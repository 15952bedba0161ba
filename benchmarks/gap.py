"""Compare the test metrics of two studies seed by seed, from their stored results.

    python -m benchmarks.gap results/digits/bbam results/digits/supervised [--write README.md]

Prints a Markdown table. ``--write`` replaces the text between the markers ``<!-- gap -->`` and
``<!-- /gap -->`` of a file.
"""

from __future__ import annotations

import argparse
import json
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from bbam_ray.commands.progress_lines import short
from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.results.store import read_table
from benchmarks.page import write_section


def confirmed(folder: Path) -> pd.DataFrame:
    """Confirmed runs of a study's best configuration, a row per seed, without failed runs."""
    rows = read_table(folder / "confirm.parquet").to_pandas()
    best: pd.DataFrame = rows[(rows["rank"] == 1) & rows["test_map"].notna()]
    if best["number"].nunique() > 1:
        raise SystemExit(f"{folder}: confirm.parquet holds several first-ranked configurations")
    ordered: pd.DataFrame = best.set_index("seed").sort_index()
    return ordered


def comparison(first: Path, second: Path) -> str:
    """Markdown table: mean and standard deviation of both studies, and the paired difference in mAP."""
    tables = [confirmed(first), confirmed(second)]
    seeds = tables[0].index.intersection(tables[1].index)
    if len(seeds) < 2:
        raise SystemExit("the two studies share fewer than two confirmed seeds")
    head = "| study | settings | " + " | ".join(HEADLINE_METRICS) + " |"
    lines = [head, "|---" * (len(HEADLINE_METRICS) + 2) + "|"]
    for folder, table in zip((first, second), tables, strict=True):
        study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        parameters = table.iloc[0].filter(like="param_").dropna()
        # to_dict gives plain Python values instead of NumPy's.
        settings = ", ".join(
            f"{str(name).removeprefix('param_')} {short(value)}"
            for name, value in parameters.to_dict().items()
        )
        cells = []
        for metric in HEADLINE_METRICS:
            values = table.loc[seeds, f"test_{metric}"].tolist()
            cells.append(f"{fmean(values):.4f} ± {stdev(values):.4f}")
        lines.append(f"| `{study['method']}` | {settings} | " + " | ".join(cells) + " |")
    difference = (tables[0].loc[seeds, "test_map"] - tables[1].loc[seeds, "test_map"]).tolist()
    error = stdev(difference) / sqrt(len(difference))
    lines += [
        "",
        f"Difference in test mAP, paired over {len(seeds)} seeds: {100 * fmean(difference):+.1f} points, "
        f"standard error {100 * error:.1f}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    text = comparison(arguments.first, arguments.second)
    print(text)
    if arguments.write:
        write_section(arguments.write, "gap", text)


if __name__ == "__main__":
    main()
