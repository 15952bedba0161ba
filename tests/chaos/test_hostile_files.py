"""Pickles that would run code are put wherever files are read: none runs, and the file is refused, ignored
or rebuilt."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18
from traps import KINDS, LOADERS, Trap, hostile
from trees import SMALL, coco2014, images

from bbam_ray import load_model, load_study
from bbam_ray.data.datasets.coco2014 import Coco2014
from bbam_ray.data.datasets.digits import Digits, DigitsOptions
from bbam_ray.data.datasets.features import Features
from bbam_ray.data.datasets.images import Images, ImagesOptions
from bbam_ray.data.prediction.inputs import find_chunks
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.checkpoint import load_checkpoint
from bbam_ray.engine.extraction import feature_network
from bbam_ray.engine.model_folder import save_model
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import UsageError
from bbam_ray.models import check_backbone
from bbam_ray.models.text_encoders import check_length, pretrained_encoder
from bbam_ray.report.study_report import write_report
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import StudyRecord


@pytest.fixture()
def sprung(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


@pytest.fixture(params=KINDS)
def trap(request: pytest.FixtureRequest, sprung: Path) -> Any:
    """The bytes of a trap, and a check afterwards that it was not loaded."""
    yield hostile(request.param, sprung)
    assert not sprung.exists(), "code from a file has run"


@pytest.mark.parametrize("kind", KINDS)
def test_the_trap_runs_code_when_a_pickle_is_loaded(kind: str, sprung: Path) -> None:
    file = io.BytesIO(hostile(kind, sprung))
    if "pickle" in kind:
        pickle.load(file)
    elif "torch" in kind:
        torch.load(file, weights_only=False)
    elif kind == "npy":
        np.load(file, allow_pickle=True)
    else:
        np.load(file, allow_pickle=True)["features"]
    assert sprung.exists()


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@pytest.fixture(scope="module")
def trained(
    tiny_trainer: Callable[..., Trainer], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trainer, Path]:
    """A trained model, with ``checkpoints/`` and ``model/`` in a folder."""
    trainer, records = tiny_trainer(epochs=2, warmup_epochs=1), list[EpochRecord]()
    folder = tmp_path_factory.mktemp("trained")
    for _ in range(2):
        records.append(trainer.run_epoch())
        checkpoint = folder / "checkpoints" / checkpoint_folder.folder_name(trainer.epoch)
        checkpoint_folder.save_part(checkpoint, trainer, records)
    save_model(folder / "model", trainer, [0.0] * 10)
    return trainer, folder


def test_pickles_in_a_checkpoint_are_refused(
    trap: bytes, trained: tuple[Trainer, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained[1] / "checkpoints", folder)
    newest = next(checkpoint_folder.newest_first(folder))
    for name in LOADERS:
        if not (newest / name).exists():
            (newest / name).write_bytes(trap)
    assert checkpoint_folder.latest_valid(folder) == (newest, [])
    for path in (newest / "state.pt", next(newest.glob("samples-*.pt"))):
        valid = path.read_bytes()
        path.write_bytes(trap)
        refused(lambda path=path: load_checkpoint(path))
        refused(lambda: checkpoint_folder.load(newest, trained[0]))
        latest, defects = checkpoint_folder.latest_valid(folder)
        assert latest != newest and path.name in defects[0]
        path.write_bytes(valid)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.safetensors", "w"])
def test_pickles_as_pretrained_weights_are_refused(trap: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(trap)
    refused(lambda: check_backbone("resnet18", str(tmp_path / name), (3, 64, 64)))
    refused(lambda: feature_network("resnet18", str(tmp_path / name)))
    refused(lambda: check_backbone("timm:test_resnet", str(tmp_path / name), (3, 64, 64)))


def test_a_pickle_among_valid_weights_is_refused(sprung: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = dict(resnet18(weights=None).state_dict())
    torch.save(state | {"more": Trap(sprung)}, tmp_path / "w.pt")
    refused(lambda: check_backbone("resnet18", str(tmp_path / "w.pt"), (3, 64, 64)))
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_pickles_as_features_and_prediction_inputs_are_refused(
    trap: bytes, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(trap)
    refused(lambda: Features().load(Features.Options(), path, "train"))
    refused(lambda: find_chunks(path, (4,), ["a"]))
    refused(lambda: find_chunks(path, (3, 8, 8), ["a"]))
    refused(lambda: find_chunks(path, (16,), ["a"], texts=True))


def test_pickled_label_names_are_refused(sprung: Path, tmp_path: Path) -> None:
    names = np.array([Trap(sprung), Trap(sprung)], dtype=object)
    features, labels = np.zeros((8, 4), np.float32), np.eye(8, 2, dtype=np.uint8)
    np.savez(tmp_path / "x.npz", features=features, labels=labels, label_names=names)
    refused(lambda: Features().load(Features.Options(), tmp_path / "x.npz", "train"))
    refused(lambda: find_chunks(tmp_path / "x.npz", (4,), ["a", "b"]))
    assert not sprung.exists()


def test_cache_files_replaced_by_pickles_are_rebuilt(
    trap: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "cache"))
    folder, coco = images(tmp_path / "own", count=20), coco2014(tmp_path / "coco")
    small = SMALL["coco2014"]
    loads: list[Callable[[], Any]] = [
        lambda: Digits().load(DigitsOptions(scenes=20, test_scenes=20), None, "train"),
        lambda: Images().load(ImagesOptions(**SMALL["images"]), folder, "train"),
        lambda: Coco2014().load(Coco2014.Options(**small), coco, "train"),
    ]
    first = [load() for load in loads]
    files = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".npz", ".rows")]
    assert {path.suffix for path in files} == {".npz", ".rows"} and len(files) >= 4
    labels, inputs = [f.labels for f in first], [np.asarray(f.inputs[:]) for f in first]
    for path in files:
        path.write_bytes(trap)
    for index, load in enumerate(loads):
        rebuilt = load()
        np.testing.assert_array_equal(rebuilt.labels, labels[index])
        np.testing.assert_array_equal(rebuilt.inputs[:], inputs[index])


def test_pickles_in_a_model_folder_are_refused_or_ignored(
    trap: bytes, trained: tuple[Trainer, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained[1] / "model", folder)
    expected = load_model(trained[1] / "model").predict_proba(np.zeros((2, 1, 24, 24), np.uint8))
    for name in LOADERS:
        (folder / name).write_bytes(trap)
    probabilities = load_model(folder).predict_proba(np.zeros((2, 1, 24, 24), np.uint8))
    np.testing.assert_array_equal(probabilities, expected)
    for name in ("model.safetensors", "config.json", "labels.json", "thresholds.json"):
        valid = (folder / name).read_bytes()
        (folder / name).write_bytes(trap)
        refused(lambda: load_model(folder))
        (folder / name).write_bytes(valid)


def test_pickles_in_a_text_encoder_are_refused_or_ignored(
    trap: bytes, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    for name in LOADERS:
        (folder / name).write_bytes(trap)
    pretrained_encoder(str(folder))
    (folder / "model.safetensors").write_bytes(trap)
    refused(lambda: pretrained_encoder(str(folder)))
    (folder / "model.safetensors").unlink()
    refused(lambda: pretrained_encoder(str(folder)))


def test_python_code_in_an_encoder_folder_is_not_run(
    sprung: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """The library would ask in the terminal whether to run it."""
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(sprung)!r}, 'w')\nclass M: pass\n")
    mapped = (
        '"auto_map": {"AutoConfig": "evil.M", "AutoModel": "evil.M", "AutoTokenizer": "evil.M"}'
    )
    (folder / "config.json").write_text(f'{{"model_type": "evil", {mapped}}}')
    (folder / "tokenizer_config.json").write_text(f"{{{mapped}}}")
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    refused(lambda: pretrained_encoder(str(folder)))
    refused(lambda: check_length(str(folder), 8))
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["study.json", "trials.parquet", "history.parquet"])
def test_pickles_in_a_study_are_refused_or_ignored(trap: bytes, name: str, tmp_path: Path) -> None:
    space = {"metric": "val_map", "mode": "max", "parameters": {}}
    folder = tmp_path / "digits" / "x"
    StudyRecord.create(folder, {"dataset": "digits", "method": "bbam", "space": space})
    StudyStore(folder, {"scale": "float"}).flush()
    for extra in (*LOADERS, "study.db", "trainer.pkl", "tuner.pkl"):
        (folder / extra).write_bytes(trap)
    (folder / name).write_bytes(trap)
    shutil.rmtree(folder / ".previous", ignore_errors=True)
    refused(lambda: write_report(folder))
    refused(lambda: [load_study(folder).trials, load_study(folder).history])
