"""``tune`` from its command line on every data set in its real layout, two studies at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trees import SMALL, TREES

from bbam_ray import load_study
from bbam_ray.data import DATASETS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
QUICK = ("awa", "images", "text")
# digits has tests of its own
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in DATASETS
    if name != "digits"
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster that all commands share; starting one for each would take longer."""
    script = Path(__file__).with_name("cluster_script.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    yield process.stdout.readline().split()[1]
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


def tune(cluster: str, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    settings = {"hidden_dim": 8, "feature_dim": 4, "labeled_batch": 8, "unlabeled_batch": 16}
    settings |= {"warmup_passes": 1, "validation_fraction": 0.3} | SMALL[name]
    if name not in ("features", "text", "ohsumed", "aapd"):
        settings |= {"backbone": "small-cnn", "weights": "none"}
    assigned = [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
    data_dir = TREES[name](folder / name)
    return subprocess.run(
        [
            *(sys.executable, str(ROOT / "launch" / "tune.py"), "--address", "auto"),
            *("--dataset", name, "--data-dir", str(data_dir), "--results", str(folder / "results")),
            *("--name", "two", "--num-samples", "2", "--max-concurrent", "1"),
            *("--epochs", "3", "--warmup-epochs", "1", "--confirm-seeds", "1"),
            *("--folds", "1", "--final", "single", "--no-baselines"),
            *(() if name in ("images", "text") else ("--labeled-fraction", "0.5")),
            *assigned,
        ],
        env={**os.environ, "RAY_ADDRESS": cluster, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def ended(
    request: pytest.FixtureRequest, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, subprocess.CompletedProcess[str]]]:
    """A study of each data set that this test run looks at."""
    folder = tmp_path_factory.mktemp("data")
    here = [item for item in request.session.items if item.fspath == request.fspath]
    names = list(dict.fromkeys(item.callspec.params["name"] for item in here))  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda name: tune(cluster, folder, name), names))
    return folder / "results", dict(zip(names, results, strict=True))


@pytest.mark.parametrize("name", NAMES)
class TestEveryDataset:
    def test_two_trials_and_a_confirmation_are_done(self, name: str, ended: tuple) -> None:
        folder, results = ended
        assert results[name].returncode == 0, results[name].stdout + results[name].stderr
        study = load_study(folder / name / "two")
        assert list(study.trials["state"]) == ["COMPLETE"] * 2
        assert study.trials["val_map"].between(0, 1).all()
        assert study.confirm["test_map"].between(0, 1).all()
        assert sorted(study.confirm["answer"]) == ["final", "published"]

    def test_the_split_is_kept_with_the_study(self, name: str, ended: tuple) -> None:
        study = load_study(ended[0] / name / "two")
        split = study.split
        assert set(split["part"]) == {"labeled", "validation", "unlabeled"}
        assert list(split["index"]) == list(range(len(split)))
        known = split["name"].notna()
        nameless = ("features", "aapd")  # one row of a file each
        assert known.all() if name not in nameless else not known.any()
        assert study.confirm["n_labeled"][0] == (split["part"] != "unlabeled").sum()

    def test_all_processes_share_one_cache(self, name: str, ended: tuple) -> None:
        cache = Path(os.environ["BBAM_RAY_CACHE"])
        assert len(list((cache / name).glob("*.rows"))) == 2  # one for each part
