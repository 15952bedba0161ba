"""``--gpus-per-worker``: what "auto" means on a machine, and that unused GPUs are mentioned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bbam_ray.commands import gpus
from bbam_ray.commands.checks import parse_gpus, worker_shape
from bbam_ray.commands.gpus import shared_gpus, sharing_sentence
from bbam_ray.commands.study_progress import LineListener
from bbam_ray.commands.study_setup import TuneOptions, prepare
from bbam_ray.commands.train import TrainOptions
from bbam_ray.commands.train import prepare as prepare_run
from bbam_ray.commands.tune import _propose_sharing
from bbam_ray.errors import UsageError
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import StudyRecord
from bbam_ray.scale.workers.shapes import WorkerRequest

GIB = 1 << 30
SETTINGS = {"dataset": "digits", "method": "bbam", "seed": 0, "scenes": 60, "test_scenes": 20}
Machine = Callable[[int], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Pretends that this machine has a number of GPUs; nothing is computed on them."""

    def set_up(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200")

    return set_up


def request(workers: int | str = 1, asked: float | str = "auto") -> WorkerRequest:
    return worker_shape(workers, cpus=1, gpus=asked, timeout="2m", max_failures=3)


@pytest.mark.parametrize(
    ("text", "expected"), [("auto", None), ("0", 0.0), ("0.25", 0.25), (1, 1.0), (0.5, 0.5)]
)
def test_a_number_or_auto(text: float | str, expected: float | None) -> None:
    assert parse_gpus(text) == expected


@pytest.mark.parametrize("text", ["-1", "two", "nan", "inf", "", "AUTO"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--gpus-per-worker .*expected auto, 0, a fraction"):
        parse_gpus(text)


@pytest.mark.parametrize(
    ("count", "workers", "expected"),
    [
        (0, 4, 0.0),
        (1, 1, 1.0),
        (4, 2, 1.0),
        (4, "2-4", 1.0),
        (1, 2, 0.5),
        (2, 3, 0.5),
        (2, 7, 0.25),
    ],
)
def test_auto_gives_each_worker_a_gpu_or_an_equal_share(
    machine: Machine, count: int, workers: int | str, expected: float
) -> None:
    machine(count)
    shape = gpus.with_gpus(request(workers), "local")
    assert shape.gpus == expected
    # the workers of a GPU never need more than it has, and no more GPUs than there are
    assert expected == 0 or shape.max_workers <= count * int(1 / expected)


@pytest.mark.parametrize("asked", ["0", "0.25", "1"])
def test_what_the_user_asks_for_is_what_a_worker_gets(machine: Machine, asked: str) -> None:
    machine(4)
    assert gpus.with_gpus(request(2, asked), "local").gpus == float(asked)


def test_a_search_uses_the_gpu_of_this_machine_by_default(machine: Machine, tmp_path: Path) -> None:
    machine(2)
    made = prepare(TuneOptions(settings=SETTINGS, shape=request(), results=tmp_path))
    assert made.plan.shape.gpus == 1 and made.plan.settings["device"] == "cuda"
    assert made.plan.concurrency == 2
    run = prepare_run(TrainOptions(settings=SETTINGS, shape=request(), results=tmp_path))
    assert run.shape.gpus == 1 and run.config.training.device == "cuda"


def test_zero_means_the_cpu(machine: Machine, tmp_path: Path) -> None:
    machine(2)
    made = prepare(TuneOptions(settings=SETTINGS, shape=request(1, 0), results=tmp_path))
    assert made.plan.shape.gpus == 0 and made.plan.settings["device"] == "cpu"


def test_a_study_that_began_on_the_cpu_is_resumed_there(machine: Machine, tmp_path: Path) -> None:
    machine(1)
    for device, expected in (("cpu", 0.0), ("cuda", 1.0)):
        folder = tmp_path / device
        StudyRecord.create(folder, {"settings": {"device": device}})
        asked = gpus.of_resumed(request(), folder)
        assert gpus.with_gpus(asked, "local").gpus == expected
        assert gpus.of_resumed(request(1, 0.5), folder).gpus == 0.5
        (folder / "study.json").write_text("damaged")
        assert gpus.of_resumed(request(), folder) == request()


def test_devices_are_named(machine: Machine) -> None:
    machine(4)
    assert gpus.devices_text(1, 0, "local") == "1 CPU each"
    assert gpus.devices_text(2, 0, "auto") == "2 CPUs each"
    assert gpus.devices_text(1, 1.0, "local") == "1 x NVIDIA H200 each"
    assert gpus.devices_text(1, 1 / 3, "local") == "0.333 x NVIDIA H200 each"
    assert gpus.devices_text(1, 1.0, "auto") == "1 GPU each"


def test_a_gpu_that_is_not_used_is_mentioned(machine: Machine) -> None:
    machine(0)
    assert gpus.unused_gpu(0, "local") is None
    machine(2)
    text = gpus.unused_gpu(0, "local")
    assert text is not None and "2 x NVIDIA H200 are not used" in text
    assert gpus.unused_gpu(1, "local") is None
    assert gpus.unused_gpu(0, "auto") is None


@pytest.mark.parametrize(
    ("changes", "gpus", "count"),
    [
        ({}, 1, 4),
        ({"num_samples": 1, "concurrency": 1}, 1, None),  # nothing had to wait
        ({"num_samples": 3, "concurrency": 1}, 1, 2),
        ({"num_samples": 8, "concurrency": 4}, 1, 2),  # on four GPUs
        ({"concurrency": 2}, 0.5, 4),
        ({"concurrency": 4}, 0.25, None),
    ],
)
def test_the_end_of_a_search_proposes_a_fraction(
    changes: dict[str, int],
    gpus: float,
    count: int | None,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(4)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    options = TuneOptions(settings=SETTINGS, shape=request(1, gpus), results=tmp_path)
    plan = replace(prepare(options).plan, **{"num_samples": 8, "concurrency": 1, **changes})
    row = {"gpu_memory": 15 * GIB, "gpu_memory_total": 80 * GIB, "gpu_use": 25.0}
    measured = shared_gpus(plan, [row], "local")
    assert measured is not None and measured[1] == count
    assert shared_gpus(plan, [{}], "local") is None  # nothing was measured
    several = replace(plan, shape=replace(plan.shape, workers=2))
    assert shared_gpus(several, [row], "local") is None
    if count == 4:
        text = sharing_sentence(measured[0], count)
        assert "at most 15.6 of 80 GiB" in text and "`--gpus-per-worker 0.25` runs 4" in text
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # none for a second trial on a GPU
    again = shared_gpus(plan, [row], "local")
    assert again is not None and again[1] is None


def test_the_end_of_a_search_stores_and_says_what_its_trials_needed(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(1)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    plan = prepare(TuneOptions(settings=SETTINGS, shape=request(), results=tmp_path)).plan
    record = StudyRecord.create(tmp_path / "one", {"settings": {}})
    store = StudyStore(record.folder, plan.space.kinds)
    row = {"study": "one", "trial_id": "t00000", "number": 0, "epoch": 1, "phase": "warmup"}
    store.history.put([row | {"gpu_memory": 2 * GIB, "gpu_memory_total": 139 * GIB}])
    store.flush()
    lines: list[str] = []
    _propose_sharing(plan, record, LineListener(lines.append), "local")
    (line,) = lines
    assert "2.6 of 139 GiB" in line and "install nvidia-ml-py" in line and "0.125" in line
    assert StudyRecord.open(record.folder).content["gpu"]["trials_per_gpu"] == 8
