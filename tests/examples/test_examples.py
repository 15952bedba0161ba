"""Every example runs, at a small size, and is short enough to be read at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bbam_ray import load_study
from bbam_ray.methods import METHODS

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_at_most_60_lines_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert f"python examples/{path.name}" in text.split('"""')[1]


def test_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("own_images").main(tmp_path, epochs=4)
    (folder,) = (tmp_path / "images").iterdir()
    history = load_study(folder).history
    assert list(history.phase) == ["warmup"] * 2 + ["main"] * 2
    printed = capsys.readouterr().out
    assert "80 unlabelled" in printed and "000.png circle" in printed


def test_add_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_addresses", dict(METHODS._addresses))
    monkeypatch.setattr(METHODS, "_loaded", dict(METHODS._loaded))
    load("add_a_method").main(tmp_path, epochs=6)
    (folder,) = (tmp_path / "digits").iterdir()
    study = load_study(folder)
    assert study.record["method"] == "fixed_threshold"
    main: Any = study.history[study.history.phase == "main"]
    assert len(main) and main.pseudo_precision.notna().any()  # its pseudo-labels are recorded


@pytest.mark.ray
def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_fold = {"folds": 1, "final": "single", "baselines": False}
    load("quickstart").main(tmp_path, trials=2, epochs=4, **one_fold)
    printed = capsys.readouterr().out
    assert printed.count("highest score") == 3 and "COMPLETE" in printed


@pytest.mark.ray
def test_compare_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("compare_methods").main(tmp_path, ["cap", "supervised:loss=bce"], seeds=2, epochs=3)
    printed = capsys.readouterr().out
    assert "supervised:loss=bce" in printed and "test_map" in printed
    assert (tmp_path / "digits" / "comparison" / "compare.html").is_file()
