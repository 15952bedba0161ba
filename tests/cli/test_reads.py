"""A command reads the training part once, however many of its steps need it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.commands import compare_setup
from bbam_ray.data import DATASETS
from bbam_ray.results.store import read_table
from bbam_ray.scale.study.plan import StudyResult
from bbam_ray.scale.workers.shapes import WorkerRequest

SMALL = ["--set", "scenes=60", "--set", "test_scenes=20", "--labeled-fraction", "0.5"]
SHAPE = WorkerRequest(1, 1, 1, 0.0, timeout_s=60.0, max_failures=0)


@pytest.fixture()
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of digits that are read, in their order."""
    monkeypatch.chdir(tmp_path)
    parts: list[str] = []
    load = type(DATASETS["digits"]).load

    def counted(self: Any, options: Any, data_dir: Any, part: str) -> Any:
        parts.append(part)
        return load(self, options, data_dir, part)

    monkeypatch.setattr(type(DATASETS["digits"]), "load", counted)
    return parts


def run(*arguments: str) -> None:
    ended = CliRunner().invoke(app, [*arguments, *SMALL])
    assert ended.exit_code == 0, ended.output


def test_a_dry_run_reads_once(reads: list[str]) -> None:
    run("tune", "--dry-run")
    assert reads == ["train"]


def test_the_driver_of_a_search_reads_once(
    reads: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bbam_ray.commands import tune

    def trained_elsewhere(plan: Any, record: Any, listener: Any) -> StudyResult:
        row = {"number": 0, "val_map": 0.5, "best_epoch": 1, "state": "COMPLETE", "error": None}
        row |= {"pareto": None, "gpu_hours": 0.0}
        record.end("COMPLETE")
        return StudyResult("COMPLETE", [row], [], row)

    monkeypatch.setattr(tune, "connected", lambda *_, **__: nullcontext(None))
    monkeypatch.setattr(tune, "run_study", trained_elsewhere)
    monkeypatch.setattr(tune, "_write_report", lambda *_: None)
    run("tune", "--name", "mine", "--json")
    assert reads == ["train"]
    run("tune", "--name", "mine", "--json", "--resume")
    assert reads == ["train", "train"]
    assert read_table(tmp_path / "results" / "digits" / "mine" / "split.parquet").num_rows == 60


def test_a_run_reads_each_part_once(reads: list[str]) -> None:
    tiny = ["--epochs", "1", "--warmup-epochs", "1", "--set", "hidden_dim=8", "--name", "mine"]
    run("train", *tiny, "--test")
    assert reads == ["train", "test"]
    run("train", *tiny, "--resume")
    assert reads == ["train", "test", "train"]


def test_methods_that_are_compared_share_what_was_read(reads: list[str], tmp_path: Path) -> None:
    methods = ["bbam", "supervised", "bbam:scenes=70"]
    options = compare_setup.CompareOptions(
        settings={"dataset": "digits", "seed": 0, "scenes": 60, "test_scenes": 20},
        shape=SHAPE,
        methods=methods,
        labeled_fractions=[0.5, 0.6],
        results=tmp_path / "results",
    )
    prepared = compare_setup.prepare(options)
    assert [study.entry.text for study in prepared.studies] == methods * 2
    assert [len(study.split.table()) for study in prepared.studies] == [60, 60, 70] * 2
    assert reads == ["train", "train"]
    assert not (tmp_path / "results").exists()
