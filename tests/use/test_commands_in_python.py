"""The functions behind the commands, called from Python with a listener; they print nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from trees import images

from bbam_ray.commands import data
from bbam_ray.commands.export import export
from bbam_ray.commands.listener import Listener
from bbam_ray.commands.predict import predict
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError

Stored = tuple[Trainer, Path]


class Recorder(Listener):
    """Keeps everything that a command reports."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.messages: list[str] = []

    def progress(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_predict_and_export_return_results_and_print_nothing(
    digits_model: Stored, scenes: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", images=scenes)
    recorder = Recorder()
    result = predict(
        str(digits_model[1]), tmp_path / "x.npz", tmp_path / "o.csv", listener=recorder
    )
    assert (result.rows, result.unreadable, result.output) == (100, 0, tmp_path / "o.csv")
    assert recorder.steps[-1] == ("scoring", 100, 100)
    (message,) = recorder.messages
    assert message.startswith(f"model {digits_model[1]}: 100 samples, ")
    assert message.endswith("1 CPU each" if not torch.cuda.is_available() else "each")
    exported = export(digits_model[1], tmp_path / "out", inputs=tmp_path / "x.npz")
    assert exported.differences == {"model.safetensors": 0.0} and exported.samples == 64
    with pytest.raises(UsageError, match="--format tflite: unknown"):
        export(digits_model[1], tmp_path / "other", formats=["tflite"])
    assert capfd.readouterr() == ("", "")


def test_data_functions_take_settings_and_report_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "cache"))
    settings = {"data_dir": images(tmp_path / "own"), "image_size": 32}
    recorder = Recorder()
    inspection = data.check("images", settings, listener=recorder)
    assert not inspection.errors and inspection.counts["test"] == 16
    assert ("decoding the images of data set images", 46, 46) in recorder.steps
    assert data.info("images", settings).has_images
    assert data.cache("images", settings).samples == 62
    assert data.clear_cache("images", settings).nbytes > 0
    with pytest.raises(UsageError, match="unknown setting 'sead'"):
        data.info("digits", {"sead": 1})
    assert capfd.readouterr() == ("", "")
