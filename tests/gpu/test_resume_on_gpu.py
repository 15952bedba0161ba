"""Resuming on a GPU: close to a run without interruption, from a checkpoint of either device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from saved_training import train_to_end

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.trainer import EpochRecord, Trainer

pytestmark = pytest.mark.gpu

Make = Callable[..., Trainer]
METHODS = ["bbam", "cap", "softmatch", "dicap"]


def assert_close(
    found: Trainer, expected: Trainer, records: tuple[EpochRecord, EpochRecord]
) -> None:
    a, b = (
        torch.cat([p.detach().double().flatten().cpu() for p in trainer.model.parameters()])
        for trainer in (found, expected)
    )
    assert float((a - b).norm() / b.norm()) < 0.02
    loss, val_map = (records[1].scalars[name] for name in ("loss", "val_map"))
    assert records[0].scalars["loss"] == pytest.approx(loss, rel=0.05)
    assert records[0].scalars["val_map"] == pytest.approx(val_map, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [1, 3], ids=["warm-up", "main phase"])
def test_it_resumes_close_to_where_it_was(
    method: str,
    stop: int,
    on_device: Make,
    tmp_path: Path,
    device: torch.device,
    devices_of: Callable,
) -> None:
    whole = on_device(method=method, amp=False)
    expected = train_to_end(whole, tmp_path)
    again = on_device(method=method, amp=False)
    before = checkpoint_folder.load(tmp_path / checkpoint_folder.folder_name(stop), again)
    assert len(before) == again.epoch == stop
    # the counters of steps of a fused optimizer are on the device, too
    assert devices_of(list(again.optimizer.state.values())) == {device.type}
    assert devices_of(again.average.module.state_dict()) == {device.type}
    assert_close(again, whole, (train_to_end(again)[-1], expected[-1]))


def test_a_checkpoint_changes_the_device(on_device: Make, tmp_path: Path) -> None:
    whole = on_device(amp=False)
    expected = train_to_end(whole, tmp_path)
    elsewhere = on_device(amp=False, device="cpu")
    checkpoint_folder.load(tmp_path / checkpoint_folder.folder_name(3), elsewhere)
    assert_close(elsewhere, whole, (train_to_end(elsewhere)[-1], expected[-1]))
    other = tmp_path / "cpu"
    other.mkdir()
    source = on_device(amp=False, device="cpu")
    train_to_end(source, other)
    back = on_device(amp=False)
    checkpoint_folder.load(other / checkpoint_folder.folder_name(3), back)
    assert_close(back, source, (train_to_end(back)[-1], expected[-1]))


def test_float16_starts_its_scale_again_in_every_epoch(on_device: Make, cuda: torch.device) -> None:
    trainer = on_device(amp_dtype="float16")
    assert trainer.precision.dtype == torch.float16
    scalers, take = [], trainer.take_steps

    def watched(*arguments: object, **options: object) -> object:
        scalers.append((trainer.precision.scaler, trainer.precision.scaler.get_scale()))
        result = take(*arguments, **options)
        trainer.precision.scaler.update(new_scale=2.0)
        return result

    trainer.take_steps = watched  # type: ignore[method-assign]
    records = train_to_end(trainer)
    assert len({id(scaler) for scaler, _ in scalers}) == len(records) == 4
    assert {scale for _, scale in scalers} == {2.0**16}
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_float16_resumes_close_to_where_it_was(on_device: Make, tmp_path: Path) -> None:
    whole = on_device(amp_dtype="float16")
    expected = train_to_end(whole, tmp_path)
    again = on_device(amp_dtype="float16")
    checkpoint_folder.load(tmp_path / checkpoint_folder.folder_name(3), again)
    assert_close(again, whole, (train_to_end(again)[-1], expected[-1]))
