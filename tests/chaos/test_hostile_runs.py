"""A run that goes on in a folder full of traps: Ray keeps its files there and reads none of ours."""

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
# Names with a time or a number in them, of Tune's snapshots.
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
    """Names of pickles that Ray's sources mention where they train and search."""
    folder, found = Path(ray.__file__).parent, set[str]()
    for part in ("train", "tune", "air"):
        for path in (folder / part).rglob("*.py"):
            found |= set(
                re.findall(r"[\"']([\w.\-]+\.(?:pkl|pickle|bin|pt))[\"']", path.read_text())
            )
    return found


def embedded(sprung: Path) -> bytes:
    """JSON as Tune writes what JSON cannot hold."""
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
def test_a_run_under_ray_train_goes_on_among_traps_and_springs_none(tmp_path: Path) -> None:
    train(tmp_path)
    folder, sprung = tmp_path / "digits" / "run", tmp_path / "sprung"
    checkpoints = folder / "checkpoints"
    kept = [checkpoint_folder.epoch_of(p) for p in checkpoint_folder.newest_first(checkpoints)]
    newest, before = kept[0], kept[1]
    names = {*names_in_ray(), *SNAPSHOTS, *LOADERS} - {"state.pt"}
    assert names >= {"trainer.pkl", "tuner.pkl", "error.pkl", "params.pkl"}
    places = [folder, checkpoints, checkpoints / checkpoint_folder.folder_name(before)]
    places += [checkpoints / "trials" / "t00000"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(sorted(names)):
            as_json = name.endswith(".json") or number % 7 == 0
            content = hostile(KINDS[number % len(KINDS)], sprung)
            (place / name).write_bytes(embedded(sprung) if as_json else content)
    damaged = checkpoints / checkpoint_folder.folder_name(newest)
    for path in damaged.glob("*.pt"):
        path.write_bytes(hostile("torch", sprung))
    shutil.copytree(damaged, checkpoints / checkpoint_folder.folder_name(99))
    said = train(tmp_path, "--resume", "--workers", "2")
    assert f"from epoch {before}" in said, said
    assert not sprung.exists(), "code from a file has run"
    history = read_table(folder / "history.parquet").to_pandas()
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    (checkpoints / "trainer.pkl").write_bytes(hostile("pickle", sprung))
    pickle.loads((checkpoints / "trainer.pkl").read_bytes())
    assert sprung.exists()
