"""A stored study in Python: its tables, its best settings, and how it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bbam_ray
from bbam_ray.documents import write_json
from bbam_ray.errors import UsageError
from bbam_ray.results.loading import load_study
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import locked


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """Four trials, of which the third is the best and the last failed; two confirmed seeds."""
    place = tmp_path / "results" / "digits" / "mine"
    place.mkdir(parents=True)
    write_json(
        place / "study.json",
        {
            "schema_version": 1,
            "study": "mine",
            "dataset": "digits",
            "method": "bbam",
            "status": "COMPLETE",
            "num_samples": 4,
            "space": {"metric": "val_map", "mode": "max"},
            "settings": {"seed": 3},
        },
    )
    store = StudyStore(place, {"margin": "float"})
    for number, (state, value) in enumerate(
        [("COMPLETE", 0.5), ("PRUNED", 0.9), ("COMPLETE", 0.7), ("FAILED", None)]
    ):
        identity = {"study": "mine", "trial_id": f"t{number:05d}", "number": number}
        store.trials.put(
            [identity | {"state": state, "val_map": value, "param_margin": 0.1 * number}]
        )
        store.history.put([identity | {"epoch": 1, "val_map": value}])
    best = {"study": "mine", "trial_id": "t00002", "number": 2, "rank": 1}
    store.confirm.put([best | {"seed": seed, "test_map": 0.6 + 0.02 * seed} for seed in (1, 2)])
    store.flush()
    store.write_best({"margin": 0.2, "seed": 3}, "best")
    return place


def test_the_best_trial_comes_first(folder: Path) -> None:
    study = load_study(folder)
    assert study.trials["number"].tolist() == [2, 0, 1, 3]
    assert (study.name, study.status, study.metric) == ("mine", "COMPLETE", "val_map")
    assert study.best == {"margin": 0.2, "seed": 3}
    assert len(study.history) == 4
    assert study.labels.empty
    assert study.confirm["seed"].tolist() == [1, 2]


def test_it_prints_well(folder: Path) -> None:
    study = load_study(str(folder))
    shown = repr(study)
    assert "study mine: bbam on digits, COMPLETE, 4 of 4 trials" in shown
    assert "best: trial 2, val_map 0.7000" in shown
    assert "margin=0.2" in shown
    assert "trial 2: test mAP 0.6300 +- 0.0141 over 2 seeds" in shown
    page = study._repr_html_()
    assert "<table" in page
    assert page.index(">2<") < page.index(">0<")


def test_a_study_without_an_ended_trial_prints_too(folder: Path) -> None:
    for table in ("trials", "history", "labels", "confirm"):
        (folder / f"{table}.parquet").unlink()
    study = load_study(folder)
    assert "0 of 4 trials" in repr(study)
    assert study.trials.empty
    assert "<p>" in study._repr_html_()


def test_no_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no study"):
        load_study(tmp_path)


def test_the_package_offers_it_without_loading_torch() -> None:
    code = (
        "import sys, bbam_ray, bbam_ray.results.loading\n"
        "assert 'torch' not in sys.modules\n"
        "from bbam_ray import load_study, train, tune_study\n"
        "assert 'ray' not in sys.modules\n"
        "try:\n    bbam_ray.nothing\nexcept AttributeError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "module 'bbam_ray' has no attribute 'nothing'", done.stderr
    assert set(bbam_ray.__all__) == {
        *("Study", "compare", "load_model", "load_study", "train", "tune_study"),
    }


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom bbam_ray.errors import UsageError\n"
        "from bbam_ray.results.study import locked\n"
        f"try:\n    with locked(Path({str(tmp_path)!r})):\n        print('free')\n"
        "except UsageError as error:\n    print(error)"
    )

    def other() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return done.stdout

    with locked(tmp_path):
        assert "is being run by another process" in other()
    assert other().strip() == "free"
    assert os.listdir(tmp_path) == [".lock"]
