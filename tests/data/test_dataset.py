"""What every registered data set promises, and what a part of one must look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbam_ray.data import DATASETS, Dataset, Samples
from bbam_ray.data.dataset import cache_dir

SMALL: dict[str, dict[str, Any]] = {
    "digits": {"scenes": 40, "test_scenes": 30},
    "awa": {"image_size": 32},
}


@pytest.mark.parametrize("name", list(DATASETS))
class TestEveryDataset:
    def loaded(self, name: str, tree: Path) -> tuple[Dataset, Samples, Samples]:
        dataset = DATASETS[name]
        options = dataset.Options.build(SMALL[name], "test")
        folder = tree if name == "awa" else None
        dataset.check(options, folder)
        train, test = (dataset.load(options, folder, part) for part in ("train", "test"))
        return dataset, train, test

    def test_parts_fit_together(self, name: str, awa_tree: Path) -> None:
        dataset, train, test = self.loaded(name, awa_tree)
        assert dataset.name == name
        assert train.input_shape == test.input_shape
        assert train.label_names == test.label_names
        assert len(set(train.label_names)) == len(train.label_names)
        assert not np.shares_memory(train.inputs, test.inputs)

    def test_labels_are_zeros_and_ones(self, name: str, awa_tree: Path) -> None:
        _, *parts = self.loaded(name, awa_tree)
        for part in parts:
            assert part.labels.dtype == np.uint8 and set(np.unique(part.labels)) == {0, 1}
            assert part.labels.shape == (len(part.inputs), len(part.label_names))

    def test_images_are_bytes_with_a_mean_for_each_channel(self, name: str, awa_tree: Path) -> None:
        dataset, train, _ = self.loaded(name, awa_tree)
        assert train.inputs.dtype == np.uint8 and train.inputs.ndim == 4
        assert len(dataset.views.mean) == len(dataset.views.std) == train.inputs.shape[1]

    def test_loading_again_gives_the_same(self, name: str, awa_tree: Path) -> None:
        _, *first = self.loaded(name, awa_tree)
        _, *second = self.loaded(name, awa_tree)
        for ours, theirs in zip(first, second, strict=True):
            np.testing.assert_array_equal(ours.inputs, theirs.inputs)
            np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_samples_that_do_not_fit_together_are_refused() -> None:
    inputs, labels = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.uint8)
    assert Samples(inputs, labels, ("a", "b")).input_shape == (2,)
    with pytest.raises(ValueError, match="do not fit together"):
        Samples(inputs[:2], labels, ("a", "b"))
    with pytest.raises(ValueError, match="do not fit together"):
        Samples(inputs, labels, ("a", "b", "c"))


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("BBAM_RAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "bbam_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "bbam_ray"
