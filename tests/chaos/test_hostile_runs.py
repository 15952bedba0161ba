"""A run that resumes in a folder full of malicious pickles: neither Ray nor the run loads any."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from traps import KINDS, LOADERS, Trap, hostile

from bbam_ray.engine import checkpoint_folder
from bbam_ray.results.store import read_table

ROOT = Path(__file__).parents[2]
# Names of Tune's snapshots, which contain a time or a number.
SNAPSHOTS = (
    *(
        "experiment_state-2026-01-01_00-00-00.json",
        "searcher-state-1.pkl",
        "search_gen_state-1.json",
    ),
    *("checkpoint_manager_snapshot.json", "validation_manager_snapshot.json", "result.json"),
    *(".metadata.json", ".tune_metadata", ".validate_storage_marker", "dict_checkpoint.pkl"),
)


def names_in_ray() -> set[str]:
    """File names of pickles in the source code of Ray Train and Ray Tune."""
    folder, names = Path(ray.__file__).parent, set[str]()
    for part in ("train", "tune", "air"):
        for path in (folder / part).rglob("*.py"):
            names |= set(
                re.findall(r"[\"']([\w.\-]+\.(?:pkl|pickle|bin|pt))[\"']", path.read_text())
            )
    return names


def embedded(sprung: Path) -> bytes:
    """JSON with an embedded pickle, as Tune writes values that JSON does not support."""
    trap = pickle.dumps(Trap(sprung)).hex()
    return json.dumps({"stats": {"_type": "CLOUDPICKLE_FALLBACK", "value": trap}}).encode()


def train(results: Path, *flags: str) -> str:
    command = [sys.executable, "launch/train.py", "--results", str(results), "--name", "run"]
    command += ["--epochs", "4", "--warmup-epochs", "1"]
    for setting in ("scenes=120", "test_scenes=40", "labeled_fraction=0.3", "warmup_passes=1"):
        command += ["--set", setting]
    ended = subprocess.run(
        [*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_resumes_among_pickles_and_loads_none(tmp_path: Path) -> None:
    train(tmp_path)
    folder, sprung = tmp_path / "digits" / "run", tmp_path / "sprung"
    checkpoints = folder / "checkpoints"
    epochs = [checkpoint_folder.epoch_of(p) for p in checkpoint_folder.newest_first(checkpoints)]
    newest, previous = epochs[0], epochs[1]
    names = {*names_in_ray(), *SNAPSHOTS, *LOADERS} - {"state.pt"}
    assert names >= {"trainer.pkl", "tuner.pkl", "error.pkl", "params.pkl"}
    folders = [folder, checkpoints, checkpoints / checkpoint_folder.folder_name(previous)]
    folders += [checkpoints / "trials" / "t00000"]
    for target in folders:
        target.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(sorted(names)):
            as_json = name.endswith(".json") or number % 7 == 0
            content = hostile(KINDS[number % len(KINDS)], sprung)
            (target / name).write_bytes(embedded(sprung) if as_json else content)
    damaged = checkpoints / checkpoint_folder.folder_name(newest)
    for path in damaged.glob("*.pt"):
        path.write_bytes(hostile("torch", sprung))
    shutil.copytree(damaged, checkpoints / checkpoint_folder.folder_name(99))
    output = train(tmp_path, "--resume", "--workers", "2")
    assert f"from epoch {previous}" in output, output
    assert not sprung.exists(), "code from a file has run"
    history = read_table(folder / "history.parquet").to_pandas()
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    (checkpoints / "trainer.pkl").write_bytes(hostile("pickle", sprung))
    pickle.loads((checkpoints / "trainer.pkl").read_bytes())
    assert sprung.exists()
