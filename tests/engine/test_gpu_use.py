"""Columns of the GPU in the history: none on a CPU, and never an error because of them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from bbam_ray.engine.gpu_use import busy_percent, gpu_columns
from bbam_ray.results import schemas

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_cpu_has_no_such_columns(tiny_trainer: Callable) -> None:
    assert busy_percent(CPU) is None and gpu_columns(CPU, None) == {}
    record = tiny_trainer().run_epoch()
    assert not [name for name in record.scalars if name.startswith("gpu")]


@pytest.mark.parametrize("error", [ModuleNotFoundError, RuntimeError, TypeError])
def test_what_cannot_be_measured_is_unknown(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(device: object) -> int:
        raise error("no nvidia-ml-py, no driver")

    monkeypatch.setattr(torch.cuda, "utilization", fails)
    assert busy_percent(GPU) is None


def test_a_gpu_has_columns_of_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 31)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=5000)
    )
    columns = gpu_columns(GPU, busy_percent(GPU))
    assert columns == {"gpu_memory": 1000, "gpu_memory_total": 5000, "gpu_use": 31.0}
    assert set(columns) <= set(schemas.HISTORY.names)
