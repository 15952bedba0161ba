"""``bbam-ray report``: several studies, output paths, and errors before the first file is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bbam_ray.cli.main import app
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_comparison import by_dataset, comparison_sections, default_page
from bbam_ray.results.schemas import SCHEMA_VERSION


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture()
def two(write_study: Callable[..., Path], tmp_path: Path) -> list[Path]:
    return [
        write_study(tmp_path / "results" / "digits" / "a", trials=5, labels=2),
        write_study(tmp_path / "results" / "digits" / "b", trials=4, labels=2, method="supervised"),
    ]


def test_one_study_has_its_report_and_a_copy(two: list[Path], tmp_path: Path) -> None:
    ended = run(two[0], "--output", tmp_path / "copy.html")
    assert ended.exit_code == 0, ended.output
    assert ended.output.split() == [str(two[0] / "report.html"), str(tmp_path / "copy.html")]
    assert (tmp_path / "copy.html").read_bytes() == (two[0] / "report.html").read_bytes()
    assert not (two[0].parent / "comparison.html").exists()


def test_several_studies_have_a_report_each_and_a_page_that_compares_them(two: list[Path]) -> None:
    ended = run(*two)
    assert ended.exit_code == 0, ended.output
    page = two[0].parent / "comparison.html"
    assert str(page) in ended.output
    assert all((folder / "report.html").is_file() for folder in two)
    text = page.read_text(encoding="utf-8")
    assert text.count("Plotly.newPlot(") == 3
    for chunk in ("<td>a</td>", "<td>b</td>", "<td>supervised</td>", "0.7600 [0.7352, 0.7848]"):
        assert chunk in text
    assert "different data sets" not in text
    assert run(*two).exit_code == 0  # a page of ours is replaced


def test_studies_on_different_data_sets_are_kept_apart(
    two: list[Path], write_study: Callable[..., Path], tmp_path: Path
) -> None:
    other = write_study(tmp_path / "results" / "awa" / "c", trials=4, labels=2, dataset="awa")
    assert default_page([*two, other]) == tmp_path / "results" / "comparison.html"
    assert run(*two, other).exit_code == 0
    text = (tmp_path / "results" / "comparison.html").read_text(encoding="utf-8")
    assert "on different data sets: digits, awa" in text
    assert text.count("Plotly.newPlot(") == 6
    sets = by_dataset([ReportData(folder) for folder in (*two, other)])
    assert {name: len(mine) for name, mine in sets.items()} == {"digits": 2, "awa": 1}


def test_the_best_so_far_never_falls(two: list[Path]) -> None:
    made = comparison_sections("digits", [ReportData(folder) for folder in two], alone=True)
    figure = {p.name: p.figure for g in made for p in g.figures}["best-so-far"]
    for line in figure.data:
        assert list(line.y) == sorted(line.y)
    assert [line.name for line in figure.data] == ["a", "b"]


def test_a_file_of_another_origin_is_not_overwritten(two: list[Path], tmp_path: Path) -> None:
    mine = tmp_path / "notes.html"
    mine.write_text("<p>my notes</p>")
    for ended in (run(*two, "--output", mine), run(two[0], "--output", mine)):
        assert ended.exit_code == 2
        assert "notes.html exists and is no page of bbam-ray" in ended.output
    assert mine.read_text() == "<p>my notes</p>"
    assert not (two[0] / "report.html").exists()
    (two[0].parent / "comparison.html").write_text("other")
    assert run(*two).exit_code == 2
    assert run(*two, "--output", tmp_path / "no" / "x.html").exit_code == 2
    assert run(*two, "--output", tmp_path).exit_code == 2


def test_a_study_named_twice_and_one_without_trials_are_wrong_usage(
    two: list[Path], write_study: Callable[..., Path], tmp_path: Path
) -> None:
    assert run(two[0], two[0]).exit_code == 2
    empty = write_study(tmp_path / "empty", trials=0, labels=0, confirmed=())
    ended = run(two[0], empty)
    assert ended.exit_code == 2 and "no trial of this study has ended" in ended.output
    assert not (two[0] / "report.html").exists()


def test_a_study_of_a_newer_version_names_folder_version_and_way_out(two: list[Path]) -> None:
    path = two[0] / "study.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": SCHEMA_VERSION + 1}))
    ended = run(two[0])
    assert ended.exit_code == 2
    assert str(two[0]) in ended.output
    assert f"schema version {SCHEMA_VERSION + 1} is newer" in ended.output
    assert "update bbam-ray" in ended.output


def test_a_table_of_a_newer_version_does_so_too(two: list[Path]) -> None:
    import pyarrow.parquet as pq

    path = two[0] / "labels.parquet"
    table = pq.ParquetFile(path).read()
    pq.write_table(table.replace_schema_metadata({"schema_version": "99"}), path)
    ended = run(two[0])
    assert ended.exit_code == 2 and "schema version 99 is newer" in ended.output
    assert "labels.parquet" in ended.output and "update" in ended.output
