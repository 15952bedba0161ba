"""In which folders workers search modules, besides those where Python does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import bbam_ray
from bbam_ray.scale.cluster.connection import package_folder

ROOT = Path(bbam_ray.__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        (["/scripts", "/site-packages"], []),
        (["/scripts", str(ROOT)], []),  # on PYTHONPATH, or installed: workers find it as well
        ([str(ROOT), "/site-packages"], [str(ROOT)]),  # by the script's folder, or "python -m"
        ([str(ROOT), "/site-packages", str(ROOT)], []),
    ],
)
def test_the_package_is_found_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, path: list[str], folders: list[str]
) -> None:
    monkeypatch.setattr(sys, "path", path)
    assert package_folder() == folders


def test_an_empty_entry_is_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/site-packages"])
    monkeypatch.chdir(ROOT)
    assert package_folder() == [str(ROOT)]
    monkeypatch.chdir("/")
    assert package_folder() == []
