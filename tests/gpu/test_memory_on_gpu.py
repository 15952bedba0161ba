"""Memory between trials of a process: what is allocated after each trial is what was after the second."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch

from bbam_ray.engine.trainer import Trainer

pytestmark = pytest.mark.gpu

TRIALS = 5


def allocated(device: torch.device) -> int:
    """Bytes of all tensors on the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("method", ["bbam", "flatmatch", "drml", "supervised"])
def test_a_trial_leaves_no_memory_behind(
    method: str, on_device: Callable[..., Trainer], run_to_end: Callable, device: torch.device
) -> None:
    after = []
    for seed in range(TRIALS):
        trainer = on_device(method=method, seed=seed)
        run_to_end(trainer)
        del trainer
        after.append(allocated(device))
    assert after[2:] == [after[1]] * (TRIALS - 2)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["auto", "true"])
def test_compiled_and_captured_networks_leave_no_memory_behind(
    how: str, cuda: torch.device, on_device: Callable[..., Trainer], run_to_end: Callable
) -> None:
    after, shares = [], []
    for seed in range(TRIALS):
        trainer = on_device(seed=seed, compile=how, labeled_batch=8, warmup_passes=20)
        shares.append(run_to_end(trainer)[1].scalars["compiled"])
        del trainer
        after.append(allocated(cuda))
    assert after[2:] == [after[1]] * (TRIALS - 2)
    assert how == "auto" or min(shares) > 0.5


def test_the_peak_of_an_epoch_does_not_grow(
    cuda: torch.device, on_device: Callable[..., Trainer], run_to_end: Callable
) -> None:
    records = run_to_end(on_device(epochs=8, warmup_epochs=2))
    peaks = [record.scalars["gpu_memory"] for record in records[3:]]
    assert max(peaks) <= 1.05 * peaks[0]
    total = records[0].scalars["gpu_memory_total"]
    assert 0 < peaks[0] < total == torch.cuda.get_device_properties(cuda).total_memory
