"""The plan that --dry-run shows: at once, without Ray, and with what earlier studies took."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.commands import study_setup
from bbam_ray.commands.time_estimate import throughput_settings
from bbam_ray.documents import write_json
from bbam_ray.results.store import StudyStore
from bbam_ray.results.throughput import measured_throughput

SMALL = ["--set", "scenes=60", "--set", "test_scenes=20", "--set", "labeled_fraction=0.5"]


def dry(*arguments: str) -> str:
    ended = CliRunner().invoke(app, ["tune", "--dry-run", *SMALL, *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def test_it_shows_space_rules_first_configurations_and_what_fits(tmp_path: Path) -> None:
    shown = dry("--num-samples", "9", "--scheduler", "asha", "--max-concurrent", "2")
    for words in (
        "0.2 to 0.5",
        "objective val_map (max); sampler tpe, scheduler asha (decides after epochs 6, 8;",
        "trial 0: scale=20 margin=0.4",
        "trial 2:",
        "9 trials of 5 folds (1 CPU each), 2 at once; then 22 runs for the final answer (best)",
        "Expected time: unknown, because no earlier study",
        "MB of confirmed models",
        "Ray's session folder: each log is rotated at 16 MB with 2 backups",
    ):
        assert words in shown
    assert not list(tmp_path.iterdir())


def test_it_loads_no_ray(tmp_path: Path) -> None:
    """Most of the five seconds that a plan may take would go into loading Ray."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom bbam_ray.cli.main import app\n"
        f"ended = CliRunner().invoke(app, ['tune', '--dry-run', *{SMALL!r}])\n"
        "assert ended.exit_code == 0, ended.output\n"
        "print([n for n in ('ray', 'torchvision', 'scipy.stats', 'plotly') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def earlier_study(folder: Path, throughput: dict[str, Any], seconds: float, answered: bool) -> None:
    """What a study leaves behind, as far as an estimate looks at it."""
    folder.mkdir(parents=True)
    content = {"schema_version": 1, "method": "bbam", "pace": throughput}
    write_json(folder / "study.json", content)
    store = StudyStore(folder, {})
    store.trials.put(
        {
            "study": folder.name,
            "trial_id": f"t{number:05d}",
            "number": number,
            "state": "COMPLETE",
            "epochs": 13,
            "seconds_per_epoch": seconds,
            "duration_s": 13 * seconds + 1.5,
            "started_at": datetime.now(UTC),
            "answered_by": "other/t00000" if answered else None,
        }
        for number in range(3)
    )
    store.flush()


def test_the_time_is_that_of_an_earlier_study_of_the_same_kind(tmp_path: Path) -> None:
    studies = []
    prepare = study_setup.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_setup, "prepare", lambda *a: studies.append(prepare(*a)) or studies[-1])
        dry("--max-concurrent", "2", "--folds", "1")
    throughput = json.loads(json.dumps(throughput_settings(studies[0].plan)))
    parent = tmp_path / "results" / "digits"
    earlier_study(parent / "answered", throughput, 9.0, answered=True)
    earlier_study(parent / "wider", {**throughput, "hidden_dim": 999}, 7.0, answered=False)
    assert measured_throughput(parent, "bbam", throughput) is None
    earlier_study(parent / "like", throughput, 0.5, answered=False)
    assert measured_throughput(parent, "supervised", throughput) is None
    shown = dry("--max-concurrent", "2", "--folds", "1")
    # 8 trials, 3 runs for the final answer and 3 for the published settings, of 13 epochs of 0.5 s and
    # 1.5 s of overhead each, two at once.
    assert "At most 56s: 0.50 s per epoch in study 'like', 14 runs of 13 epochs" in shown
    # 8 trials and 2 further seeds of 5 folds each, and 3 runs for the published settings.
    shown = dry("--max-concurrent", "2", "--folds", "5")
    assert "0.50 s per epoch in study 'like', 62 runs of 13 epochs" in shown
