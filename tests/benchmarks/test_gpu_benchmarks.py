"""Every benchmark of the GPU on a CPU at toy size, and rows without a time where there is no GPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bbam_ray.methods.bbam import Bbam
from benchmarks import gpu, gpu_refresh, gpu_small, gpu_training
from benchmarks.__main__ import table
from benchmarks.epoch import make_trainer, voc_like
from benchmarks.measure import append
from benchmarks.refresh import draw, refreshed

TINY: dict[str, Any] = {"backbone": "resnet18", "side": 32}
DIGITS: dict[str, Any] = {"scenes": 120, "test_scenes": 40, "labeled_fraction": 0.3}
DIGITS |= {"hidden_dim": 16, "feature_dim": 8, "warmup_passes": 1}
UNTIMED: dict[str, Any] = {"plain_s": None, "ratio": None, "rounds": 3}


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with voc_like(60) as folder:
        yield folder


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpu_training, gpu_small):
        monkeypatch.setattr(module, "ROUNDS", 1)


def assert_timed(timed: dict[str, Any], *, alone: bool = False) -> dict[str, Any]:
    assert timed["ours_s"] > 0 and timed["rounds"] > 0
    if alone:
        assert timed["plain_s"] is None and timed["ratio"] is None
    else:
        assert timed["plain_s"] > 0 and timed["ratio"] > 0
    details: dict[str, Any] = timed.get("details", {})
    return details


def test_steps_against_the_synthetic_loop(root: Path) -> None:
    timed = gpu_training.steps("cpu", root, **TINY, batch=16)
    details = assert_timed(timed)
    assert details["share_of_synthetic"] == timed["ratio"]
    samples = details["images_per_second"] * timed["ours_s"]
    assert samples == pytest.approx(54 + 2 * 4)  # 54 unlabelled images in four steps of 14, at most


def test_an_epoch_against_its_parts(root: Path) -> None:
    timed = gpu_training.epoch("cpu", root, **TINY, batch=16)
    assert assert_timed(timed)["share_of_parts"] == timed["ratio"]


def test_a_whole_epoch_has_an_evaluation(root: Path) -> None:
    details = assert_timed(gpu_training.whole_epoch("cpu", root, **TINY), alone=True)
    assert details["images"] == 60
    assert all(details[f"seconds_{part}"] > 0 for part in ("refresh", "train", "evaluate"))


def test_forward_passes_of_a_refresh(root: Path) -> None:
    timed = gpu_training.forwards("cpu", root, **TINY, batch=16)
    details = assert_timed(timed, alone=True)
    assert details["images_per_second"] == pytest.approx(60 / timed["ours_s"])


def test_operations_are_those_of_the_network(root: Path) -> None:
    count = gpu_training.operations(make_trainer(root, image_size=32), 32)
    # ResNet-18 has 1.8e9 multiply-adds at 224 px: two operations each, for three passes.
    assert count == pytest.approx(6 * 1.8e9 * (32 / 224) ** 2, rel=0.15)


def test_the_arithmetic_of_a_refresh_is_compared_with_the_cpu() -> None:
    timed = gpu_refresh.arithmetic("cpu", (50, 500), labels=20, width=32)
    assert assert_timed(timed) == {"identical": True, "differing_entries": 0}


def test_an_entry_that_differs_is_noticed() -> None:
    one, two = (refreshed(cosine.clone(), *rest) for cosine, *rest in [draw(50, 500, 20, 32)] * 2)
    assert isinstance(one, Bbam) and gpu_refresh.differing_entries(one, two) == 0
    two.assigned.labels[3, 4] = 1 - two.assigned.labels[3, 4]
    two.labeled_selected[0, 0] ^= True
    assert gpu_refresh.differing_entries(one, two) == 2


@pytest.mark.parametrize("kind", ["weak", "strong", "uda"])
def test_views(kind: str) -> None:
    timed = gpu_refresh.views("cpu", kind, side=32, batch=8, repeats=2)
    assert assert_timed(timed, alone=True)["images_per_second"] == 16 / timed["ours_s"]


def test_a_step_of_digits_against_cpu_cores() -> None:
    timed = gpu_small.warmup_step("cpu", cores=1, settings=DIGITS, epochs=1)
    details = assert_timed(timed)
    assert details["milliseconds"] == pytest.approx(1e3 * timed["ours_s"])
    trainer = gpu_small.digits_trainer("cpu", DIGITS)
    assert gpu_small.step_loop("cpu", None, DIGITS, 3)() == 3 * len(gpu_small.warmup_steps(trainer))


def test_an_epoch_of_digits_against_cpu_cores() -> None:
    assert_timed(gpu_small.main_epoch("cpu", cores=1, settings=DIGITS))


def test_every_row_has_a_name_of_its_own() -> None:
    names = [(part, case) for part, case, _ in gpu.ROWS]
    assert len(set(names)) == len(names) == 12


def test_every_row_calls_a_benchmark_that_takes_its_arguments(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for module in (gpu_training, gpu_refresh, gpu_small):
        for name, function in vars(module).copy().items():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                signature = inspect.signature(function)

                def bound(
                    *args: Any, _signature: inspect.Signature = signature, **options: Any
                ) -> Any:
                    called.append(_signature.bind(*args, **options))
                    return {**UNTIMED, "ours_s": 1.0}

                monkeypatch.setattr(module, name, bound)
    rows = [gpu.measured(part, case, work, "cpu", root) for part, case, work in gpu.ROWS]
    assert all(row.ours_s == 1.0 for row in rows), [row.details for row in rows]
    assert len(called) == len(rows)
    assert {call.arguments.get("kind") for call in called} == {None, "weak", "strong", "uda"}


def test_a_row_that_fails_does_not_end_the_others(root: Path) -> None:
    def fails(device: str, root: Path) -> dict[str, Any]:
        raise torch.OutOfMemoryError("no memory\nsecond line")

    row = gpu.measured("a", "x", fails, "cpu", root)
    assert row.ours_s is None and row.details == {"error": "OutOfMemoryError: no memory"}
    row = gpu.measured("a", "x", lambda device, root: {**UNTIMED, "ours_s": 1.0}, "cpu", root)
    assert row.ours_s == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is measured, at full size")
def test_without_a_gpu_the_table_shows_not_measured(tmp_path: Path) -> None:
    store = tmp_path / "m.parquet"
    append(gpu.run(False), store)
    assert table(store).count("not measured, never before") == len(gpu.ROWS)
