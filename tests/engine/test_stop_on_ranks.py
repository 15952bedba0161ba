"""SIGTERM to one rank stops all of them after the same step; any number of ranks resumes there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.engine import checkpoint_folder as folders

SCRIPT = Path(__file__).with_name("rank_stop.py")
BASE = {
    "dataset": "digits",
    "scenes": 200,
    "test_scenes": 40,
    "labeled_fraction": 0.4,
    "epochs": 4,
    "warmup_epochs": 2,
    "warmup_passes": 1,
    "hidden_dim": 16,
    "feature_dim": 8,
    "labeled_batch": 12,
    "unlabeled_batch": 16,
    "device": "cpu",
    "keep": "last",
}
SETTINGS = {method: {**BASE, "method": method} for method in ("bbam", "softmatch", "mime")}
EPOCH, STEP = 3, 3  # the first of the main phase
Group = Callable[[Path, int, Path], list[Any]]


def start(group: Group, size: int, folder: Path, checkpoints: Path, **job: Any) -> list[Any]:
    content = {"settings": SETTINGS, "checkpoints": str(checkpoints), **job}
    (folder / "settings.json").write_text(json.dumps(content), encoding="utf-8")
    return group(SCRIPT, size, folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints of two ranks that stopped, by method; filled by ``two``."""
    parent = tmp_path_factory.mktemp("checkpoints")
    for name in SETTINGS:
        (parent / name).mkdir()
    return parent


@pytest.fixture(scope="module")
def two(gloo_group: Group, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two ranks: a whole run, one that is stopped, and one that resumes."""
    folder = tmp_path_factory.mktemp("two")
    return start(gloo_group, 2, folder, checkpoints, signalled=[EPOCH, STEP])


@pytest.fixture(scope="module")
def three(
    gloo_group: Group, checkpoints: Path, two: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Three ranks that resume from the checkpoints of two."""
    folder = tmp_path_factory.mktemp("three")
    return start(gloo_group, 3, folder, checkpoints, signalled=None)


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clock = ("seconds_", "images_per_second")
    return [
        {n: v for n, v in r["scalars"].items() if not n.startswith(clock)}
        | {"by label": r["labels"]}
        for r in records
    ]


@pytest.mark.parametrize("method", SETTINGS)
def test_all_ranks_stop_after_the_step_in_which_one_got_the_signal(
    method: str, two: Any, checkpoints: Path
) -> None:
    for rank in two:
        stopped = rank[f"{method} stopped"]
        assert stopped["where"] == f"after step {STEP + 1} of epoch {EPOCH}"
        assert len(stopped["records"]) == EPOCH - 1
    (folder,) = (checkpoints / method).iterdir()
    assert folder.name == folders.folder_name(EPOCH - 1, STEP + 1)
    assert folders.defect(folder) is None


@pytest.mark.parametrize("method", SETTINGS)
def test_two_ranks_that_stopped_equal_two_that_did_not_bit_for_bit(
    method: str, two: Any, identical: Callable
) -> None:
    for rank in two:
        whole, resumed = rank[f"{method} whole"], rank[f"{method} resumed"]
        assert whole["where"] is None and resumed["where"] is None
        assert identical(timeless(resumed["records"]), timeless(whole["records"]))
        for part in ("trainer", "samples", "generator"):
            assert identical(resumed[part], whole[part]), part


@pytest.mark.parametrize("method", SETTINGS)
def test_three_ranks_resume_in_the_epoch_of_two(
    method: str, two: Any, three: Any, identical: Callable
) -> None:
    expected = two[0][f"{method} whole"]["records"]
    for rank in three:
        records = rank[f"{method} resumed"]["records"]
        assert [r["scalars"]["epoch"] for r in records] == [1, 2, 3, 4]
        for record, whole in zip(records, expected, strict=True):
            for column in ("val_map", "loss"):
                wanted = whole["scalars"][column]
                assert record["scalars"][column] == pytest.approx(wanted, abs=0.005, rel=0.01)


@pytest.mark.parametrize("method", SETTINGS)
def test_votes_cost_one_message_in_an_epoch_and_none_in_a_step(method: str, two: Any) -> None:
    for rank in two:
        whole, epochs = rank[f"{method} whole"], rank[f"{method} messages"]
        assert whole["messages"] - epochs == {"all_reduce float32": BASE["epochs"]}
        assert epochs - whole["messages"] == {}
