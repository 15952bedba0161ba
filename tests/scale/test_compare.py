"""``compare`` end to end: one protocol for all, a table from the store, and going on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.results.store import read_table

SETTINGS = ["--epochs", "3", "--warmup-epochs", "1"]
for setting in ("scenes=100", "test_scenes=40", "warmup_passes=1", "hidden_dim=8", "feature_dim=4"):
    SETTINGS += ["--set", setting]
ENTRIES = ["bbam", "bbam:balance=false+negative_ratio=.inf", "supervised:loss=bce"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, program: Callable[..., Any]) -> tuple[Path, str]:
    """The folder and the output: the first command was killed, the second resumes and extends it."""
    results = tmp_path_factory.mktemp("compare") / "results"
    common = ["launch/compare.py", "--results", str(results), "--name", "three", *SETTINGS]
    common += ["--seeds", "2", "--labeled-fractions", "0.4", "--methods"]
    first = program(*common, ",".join(ENTRIES[:2]))
    first.line("1/2 ")  # the first study has been written down
    os.killpg(first.pid, signal.SIGKILL)
    assert first.finish(60) == -signal.SIGKILL
    more = program(*common, ",".join(ENTRIES), "--resume")
    assert more.finish(200) == 0, more.output
    return results / "digits" / "three", more.output


@pytest.mark.ray
@pytest.mark.slow
class TestComparison:
    def test_every_run_has_a_row_and_all_share_seeds_and_samples(self, made: tuple) -> None:
        rows = read_table(made[0] / "compare.parquet").to_pylist()
        assert [row["entry"] for row in rows] == sorted(e for e in ENTRIES for _ in range(2))
        assert {row["place"]: row["entry"] for row in rows} == dict(enumerate(ENTRIES))
        for entry in ENTRIES:
            seeds = [row["seed"] for row in rows if row["entry"] == entry]
            assert seeds == [row["seed"] for row in rows if row["entry"] == ENTRIES[0]]
        assert {row["n_labeled"] for row in rows} == {40} and {row["n_test"] for row in rows} == {
            40
        }
        assert all(0 <= row["test_map"] <= 1 and row["seconds_per_epoch"] > 0 for row in rows)

    def test_fixed_settings_are_fixed(self, made: tuple) -> None:
        rows = read_table(made[0] / "compare.parquet").to_pylist()
        settings = {row["entry"]: json.loads(row["settings"]) for row in rows}
        assert settings[ENTRIES[0]]["balance"] is True
        assert settings[ENTRIES[1]]["balance"] is False
        assert settings[ENTRIES[1]]["negative_ratio"] == "inf"
        assert settings[ENTRIES[2]]["loss"] == "bce"

    def test_the_studies_had_the_same_split(self, made: tuple) -> None:
        folders = sorted(made[0].parent.glob("three.*"))
        splits = [read_table(folder / "split.parquet") for folder in folders]
        assert len(splits) == 3 and all(split.equals(splits[0]) for split in splits)

    def test_the_tables_name_every_entry(self, made: tuple) -> None:
        folder, printed = made
        for text in (
            (folder / "compare.md").read_text(),
            (folder / "compare.html").read_text(),
            printed,
        ):
            assert all(entry in text for entry in ENTRIES)
        assert "mAP" in printed and "≈" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "bbam,bbam"], "is given twice"),
        (["--methods", "bbm"], "did you mean 'bbam'"),
        (["--methods", "bbam:balanced=false"], "did you mean 'balance'"),
        (["--methods", "bbam:balance=perhaps"], "balance = 'perhaps'"),
        (["--methods", "bbam:balance"], "expected key=value"),
        (["--labeled-fractions", "0.05,5"], "expected shares such as"),
        (["--labeled-fractions", ""], "expected shares such as"),
        (["--labeled-fractions", ","], "--labeled-fractions ,: expected shares such as"),
        (["--labeled-fractions", "0.01", "--set", "scenes=60"], "no positive label"),
        (["--resume", "--name", "../x"], "is invalid"),
        (["--set", "scale=-1"], "scale = -1"),
    ],
)
def test_mistakes_are_named_before_anything_starts(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    given = ["compare", "--results", str(tmp_path / "results"), "--methods", "bbam", *arguments]
    ended = CliRunner().invoke(app, given)
    assert ended.exit_code == 2 and words in ended.output.replace("\n", " ")
    assert not (tmp_path / "results").exists()
