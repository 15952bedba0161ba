"""The tables of comparison.md, from rows of a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.comparison import (
    FINAL,
    Rows,
    by_seed,
    commands,
    difference,
    leads,
    merged_rows,
    minus_supervised,
    searched_settings,
    with_final_answers,
    with_start,
)

SEEDS = range(5)


def row(
    entry: str, seed: int, value: float, fraction: float = 0.1, **settings: Any
) -> dict[str, Any]:
    return {
        "entry": entry,
        "seed": seed,
        "labeled_fraction": fraction,
        "test_map": value,
        "trial": 3,
        "n_labeled": 120,
        "n_test": 600,
        "settings": json.dumps(settings),
    }


@pytest.fixture
def rows() -> Rows:
    """bbam is ahead of cap by a point in each seed, and of d2l in half of them only."""
    base = [0.5 + 0.05 * seed for seed in SEEDS]
    return [
        entry
        for seed in SEEDS
        for entry in (
            row("bbam", seed, base[seed] + 0.01, scale=20.0, learning_rate=2e-5),
            row("cap", seed, base[seed] + 0.001 * (seed % 2), gamma_negative=4.0),
            row("d2l", seed, base[seed] + 0.01 + (0.03 if seed % 2 else -0.03)),
            row("supervised", seed, base[seed]),
        )
    ]


def test_differences_are_paired_by_seed(rows: Rows) -> None:
    lines = leads(rows).splitlines()
    assert lines[0] == "| bbam minus | 10% |"
    assert lines[2] == "| cap | **+1.0 ± 0.0** |"  # the spread over seeds is 20 points
    assert lines[3] == "| d2l | +0.6 ± 1.5 |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["cap", "d2l", "supervised"]


def test_an_entry_without_common_seeds_has_an_empty_cell(rows: Rows) -> None:
    more = [*rows, row("bbam", 0, 0.6, 0.2), row("cap", 1, 0.6, 0.2)]
    lines = leads(more).splitlines()
    assert lines[0] == "| bbam minus | 10% | 20% |"
    assert lines[2] == "| cap | **+1.0 ± 0.0** |  |"
    assert difference(by_seed(more, "bbam", 0.2), by_seed(more, "cap", 0.2)) is None


def test_a_method_that_was_not_compared_has_no_line(rows: Rows) -> None:
    lines = list(minus_supervised(rows))[2:]
    assert [line.split("|")[2].strip() for line in lines] == ["bbam", "cap", "d2l"]


def test_supervised_entries_of_another_comparison_are_the_start(rows: Rows) -> None:
    other = [row("supervised", seed, 0.4 + 0.05 * seed) for seed in SEEDS]
    lines = list(minus_supervised(with_start(rows, [*other, row("bbam", 0, 0.9)])))
    assert lines[2] == "| 10% | bbam | **+11.0 ± 0.0** |  |"
    other[0]["n_labeled"] = 60
    with pytest.raises(ValueError, match="samples"):
        with_start(rows, other)
    with pytest.raises(ValueError, match="samples"):
        with_start(rows, [row("bbam", 0, 0.9)])


def test_rows_of_a_page_stay_unless_they_are_measured_again() -> None:
    header = "| data | a |\n|---|---|"
    page = f"text\n\n{header}\n| digits | 1 |\n| yeast | 2 |\n\nnote"
    assert merged_rows(f"{header}\n| yeast | 3 |\n\nnote", page, ["yeast"]) == (
        f"{header}\n| digits | 1 |\n| yeast | 3 |\n\nnote"
    )
    assert merged_rows(f"{header}\n| yeast | 3 |", "no table", ["yeast"]).endswith("| yeast | 3 |")


def test_searched_settings_are_those_of_the_chosen_trial(rows: Rows) -> None:
    lines = searched_settings(rows).splitlines()[2:]
    assert lines[0] == "| 10% | bbam | 3 | scale 20, learning_rate 2e-05 |"
    assert len(lines) == 4


def test_final_answers_are_compared_on_the_same_labelled_samples_only(rows: Rows) -> None:
    baseline = [row("logistic+propagation", seed, 0.4 + 0.1 * seed) for seed in SEEDS]
    answers = pd.DataFrame(
        {
            "seed": [1, 2, 9],  # seed 9 is not in the comparison
            "test_map": [0.57, 0.62, 0.9],
            "logistic+propagation_map": [0.5, 0.6, 0.1],
        }
    )
    lines = leads(with_final_answers([*rows, *baseline], answers), FINAL).splitlines()
    assert lines[2] == "| bbam | **+1.0 ± 0.0** |"
    answers.loc[1, "logistic+propagation_map"] = 0.61
    with pytest.raises(ValueError, match="seed 2"):
        with_final_answers([*rows, *baseline], answers)


def test_all_commands_of_a_comparison_are_shown_in_their_order(tmp_path: Path) -> None:
    later = "compare.py --name c --results '/a b' --labeled-fractions 0.2 --resume"
    for name, started, text in (
        ("c.bbam-0.2", "2026-02-01", later),
        ("c.cap-0.1", "2026-01-01", "compare.py --name c"),
        ("c.d2l-0.2", "2026-03-01", later),
        ("cd.bbam-0.1", "2026-01-01", "compare.py --name cd"),
    ):
        (tmp_path / name).mkdir()
        record = json.dumps({"started_at": started, "command": text})
        (tmp_path / name / "study.json").write_text(record)
    assert commands(tmp_path / "c").splitlines() == [
        "compare.py --name c",
        "compare.py --name c --labeled-fractions 0.2 --resume",
    ]
