"""Write the tables of comparison.md from the results of ``bbam-ray compare``.

    python -m benchmarks.comparison RESULTS/features/emotions ... [--write benchmarks/comparison.md]
        [--final NAME=SET] [--start NAME=OTHER]

For each comparison its table, what each method gains over the supervised entries, and how far bbam is
ahead of each entry: differences paired over seeds. For those with published settings also an ablation of
bbam with the variance bias (VDFD). Those with searched settings are left out of it, since their entries
differ in other settings, too, which a table of their own shows. With --final, the final answers of bbam's
searches on SET (benchmarks.regret) minus every entry of the comparison NAME, on the same labelled samples.
With --start, the supervised entries are those of the comparison OTHER. In the table of the parts of bbam,
rows of comparisons that are not named stay as they are.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from bbam_ray.report.method_comparison import comparison_markdown
from bbam_ray.results.comparison import compared, paired_p_value
from bbam_ray.results.store import read_table
from benchmarks.page import write_section
from benchmarks.regret import NEW, STORE
from benchmarks.stored_cells import read_cells

Rows = list[dict[str, Any]]
FINAL = "final answer of bbam"
WITHOUT_BALANCE, ALL_NEGATIVES = "bbam:balance=false", "bbam:negative_ratio=.inf"
#: column of the ablation to two entries and the metric whose difference it shows
PARTS = {
    "balance on - off, mAP": ("bbam", WITHOUT_BALANCE, "map"),
    "balance on - off, micro-F1": ("bbam", WITHOUT_BALANCE, "micro_f1"),
    "5 negatives per positive - all, mAP": ("bbam", ALL_NEGATIVES, "map"),
    "5 negatives per positive - all, micro-F1": ("bbam", ALL_NEGATIVES, "micro_f1"),
    "bbam - cap, mAP": ("bbam", "cap", "map"),
    "bbam - supervised, mAP": ("bbam", "supervised", "map"),
}
SEMI_SUPERVISED = ("bbam", "cap", "softmatch", "flatmatch", "mime", "drml", "d2l", "dicap")


def read(folder: Path) -> Rows:
    """Rows of a comparison without failed runs, in the order of its entries."""
    rows: Rows = read_table(folder / "compare.parquet").to_pylist()
    return sorted((row for row in rows if not row["error"]), key=lambda row: row["place"])


def commands(folder: Path) -> str:
    """The commands that made a comparison, from the records of its studies, without --results."""
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in folder.parent.glob(f"{folder.name}.*/study.json")
    ]
    lines = []
    for record in sorted(records, key=lambda each: each["started_at"]):
        words = shlex.split(record["command"])
        if "--results" in words:
            index = words.index("--results")
            del words[index : index + 2]
        lines.append(shlex.join(words))
    return "\n".join(dict.fromkeys(lines))


def fractions(rows: Rows) -> list[float]:
    """The label fractions of a comparison, ascending."""
    return sorted({row["labeled_fraction"] for row in rows})


def by_seed(rows: Rows, entry: str, fraction: float) -> dict[int, dict[str, Any]]:
    return {
        row["seed"]: row
        for row in rows
        if row["entry"] == entry and row["labeled_fraction"] == fraction
    }


def difference(
    first: Mapping[int, Any], second: Mapping[int, Any], metric: str = "map"
) -> str | None:
    """Difference in percentage points on the test part, as Markdown.

    Returns:
        Mean and standard error over common seeds, bold where p < 0.05; None for fewer than two seeds.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        return None
    name = f"test_{metric}"
    pairs = [(first[seed][name], second[seed][name]) for seed in seeds]
    changes = [100 * (a - b) for a, b in pairs]
    p_value = paired_p_value(pairs)
    text = f"{fmean(changes):+.1f} ± {stdev(changes) / sqrt(len(changes)):.1f}"
    return f"**{text}**" if p_value is not None and p_value < 0.05 else text


def _vdfd(rows: Mapping[int, Any]) -> str:
    values = [row["vdfd_mean"] for row in rows.values() if row["vdfd_mean"] is not None]
    return f"{fmean(values):.3f}" if values else ""


def parts(comparisons: Mapping[str, Rows]) -> str:
    """Ablation of bbam as Markdown, a row for each comparison and label fraction."""
    lines = [
        "| data | labelled | " + " | ".join(PARTS) + " | VDFD with, without balance |",
        "|---" * (len(PARTS) + 3) + "|",
    ]
    for name, rows in comparisons.items():
        for fraction in fractions(rows):
            cells = [
                difference(by_seed(rows, a, fraction), by_seed(rows, b, fraction), metric) or ""
                for a, b, metric in PARTS.values()
            ]
            bias = [_vdfd(by_seed(rows, entry, fraction)) for entry in ("bbam", WITHOUT_BALANCE)]
            lines.append(f"| {name} | {fraction:.0%} | {' | '.join(cells)} | {', '.join(bias)} |")
    note = "Points on the test part ± standard error over seeds; bold: p < 0.05, paired t-test."
    return "\n".join([*lines, "", note])


def minus_supervised(rows: Rows) -> Iterator[str]:
    """Lines of a Markdown table: each semi-supervised method minus the two supervised entries, mAP."""
    yield "| labelled | method | minus supervised (angular) | minus supervised (BCE) |"
    yield "|---|---|---|---|"
    for fraction in fractions(rows):
        for method in SEMI_SUPERVISED:
            own = by_seed(rows, method, fraction)
            if not own:
                continue
            cells = [
                difference(own, by_seed(rows, start, fraction)) or ""
                for start in ("supervised", "supervised:loss=bce")
            ]
            yield f"| {fraction:.0%} | {method} | {' | '.join(cells)} |"


def with_start(rows: Rows, other: Rows) -> Rows:
    """The rows of a comparison and the supervised entries of another one.

    Raises:
        ValueError: they have other numbers of samples.
    """
    start = [row for row in other if row["entry"].startswith("supervised")]
    sizes = [{(row["n_labeled"], row["n_test"]) for row in each} for each in (rows, start)]
    if not start or sizes[0] != sizes[1]:
        raise ValueError(f"(labelled, test) samples are {sizes[0]} here and {sizes[1]} there")
    return [*(row for row in rows if not row["entry"].startswith("supervised")), *start]


def merged_rows(new: str, page: str, names: Collection[str]) -> str:
    """A table with the rows of a page before its own, as far as their first cells are not ``names``.

    Args:
        new: the table as Markdown, with a header of two lines.
        page: a section of the page with a table of the same columns.
    """
    header, rows = new.splitlines()[:2], new.splitlines()[2:]
    old = (
        page[page.find(header[1]) :].split("\n\n")[0].splitlines()[1:] if header[0] in page else []
    )
    return "\n".join(
        [*header, *(row for row in old if row.split("|")[1].strip() not in names), *rows]
    )


def leads(rows: Rows, first: str = "bbam") -> str:
    """A Markdown table: one entry minus every other one in mAP, a column for each label fraction."""
    entries = list(dict.fromkeys(row["entry"] for row in rows if row["entry"] != first))
    lines = [
        f"| {first} minus | "
        + " | ".join(f"{fraction:.0%}" for fraction in fractions(rows))
        + " |",
        "|---" * (len(fractions(rows)) + 1) + "|",
    ]
    for entry in entries:
        cells = [
            difference(by_seed(rows, first, fraction), by_seed(rows, entry, fraction)) or ""
            for fraction in fractions(rows)
        ]
        lines.append(f"| {entry} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_final_answers(rows: Rows, answers: pd.DataFrame) -> Rows:
    """The rows of a comparison at 10 % and those of final answers on the same labelled samples.

    Args:
        rows: with an entry ``logistic+propagation`` at 10 %, which has no randomness but its samples.
        answers: rows of ``benchmarks.regret`` of one set.

    Raises:
        ValueError: a seed has other labelled samples in both.
    """
    baseline = "logistic+propagation"
    runs = by_seed(rows, baseline, 0.1)
    answers = answers[answers["seed"].isin(list(runs))]
    for seed, value in zip(answers["seed"], answers[f"{baseline}_map"], strict=True):
        if abs(value - runs[seed]["test_map"]) > 1e-6:
            raise ValueError(
                f"seed {seed}: {baseline} has {value} there and {runs[seed]['test_map']} here"
            )
    return [
        *(row for row in rows if row["labeled_fraction"] == 0.1),
        *(
            {"entry": FINAL, "labeled_fraction": 0.1, "seed": seed, "test_map": value}
            for seed, value in zip(answers["seed"], answers["test_map"], strict=True)
        ),
    ]


def searched_settings(rows: Rows) -> str:
    """A Markdown table: the settings that the search of each entry has chosen."""
    lines = ["| labelled | method | trial | settings |", "|---|---|---|---|"]
    for fraction in fractions(rows):
        for entry in dict.fromkeys(row["entry"] for row in rows):
            row = next(iter(by_seed(rows, entry, fraction).values()), None)
            if row is not None:
                chosen = json.loads(row["settings"])
                text = ", ".join(f"{name} {brief_value(v)}" for name, v in chosen.items())
                lines.append(f"| {fraction:.0%} | {entry} | {row['trial']} | {text} |")
    return "\n".join(lines)


def brief_value(value: Any) -> str:
    """A setting with at most three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--final", metavar="NAME=SET")
    parser.add_argument("--start", metavar="NAME=OTHER")
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    comparisons = {folder.name: read(folder) for folder in arguments.folders}
    tables = {name: comparison_markdown(compared(rows)) for name, rows in comparisons.items()}
    sections = {
        folder.name: f"```\n{commands(folder)}\n```\n\n{tables[folder.name]}"
        for folder in arguments.folders
    }
    published = {
        name: rows for name, rows in comparisons.items() if all(r["trial"] == 0 for r in rows)
    }
    sections["parts"] = parts(
        {
            name: rows
            for name, rows in published.items()
            if any(row["entry"] == WITHOUT_BALANCE for row in rows)
        }
    )
    page = arguments.write.read_text(encoding="utf-8") if arguments.write else ""
    if "<!-- parts -->" in page:
        section = page.split("<!-- parts -->")[1].split("<!-- /parts -->")[0]
        sections["parts"] = merged_rows(sections["parts"], section, comparisons)
    start_name, _, other = (arguments.start or "").partition("=")
    for name, rows in comparisons.items():
        supervised = with_start(rows, comparisons[other]) if name == start_name else rows
        sections[f"{name}-start"] = "\n".join(minus_supervised(supervised))
        sections[f"{name}-lead"] = leads(rows)
        if name not in published:
            sections[f"{name}-settings"] = searched_settings(rows)
    if arguments.final:
        name, _, data = arguments.final.partition("=")
        answers = read_cells(STORE)
        searches = {"set": data, "method": "bbam", "rule": NEW, "budget": 8}
        answers = answers[(answers[list(searches)] == pd.Series(searches)).all(axis=1)]
        sections[f"{name}-final"] = leads(with_final_answers(comparisons[name], answers), FINAL)
    for name, text in sections.items():
        print(f"\n## {name}\n\n{text}")
        if f"<!-- {name} -->" in page:
            write_section(arguments.write, name, text)


if __name__ == "__main__":
    main()
