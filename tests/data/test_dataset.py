"""What every registered data set promises, and what a part of one must look like."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from trees import SMALL, TREES

from bbam_ray.data import DATASETS, Dataset, Samples
from bbam_ray.data.cache.folder import cache_dir
from bbam_ray.engine.task import prepare_training
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config


class Made(NamedTuple):
    dataset: Dataset
    options: Any
    folder: Path | None

    def load(self) -> tuple[Samples, Samples]:
        self.dataset.check(self.options, self.folder)
        train, test = (
            self.dataset.load(self.options, self.folder, part) for part in ("train", "test")
        )
        return train, test


@pytest.fixture(params=list(DATASETS))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Each registered data set, small, in its real layout."""
    dataset = DATASETS[request.param]
    small = {k: v for k, v in SMALL[request.param].items() if k in dataset.Options.model_fields}
    options = dataset.Options.build(small, "test")
    return Made(dataset, options, TREES[request.param](tmp_path / "tree"))


class TestEveryDataset:
    def test_parts_fit_together(self, made: Made) -> None:
        train, test = made.load()
        assert DATASETS[made.dataset.name] is made.dataset
        assert train.input_shape == test.input_shape
        assert train.label_names == test.label_names
        assert len(set(train.label_names)) == len(train.label_names)

    def test_labels_are_zeros_and_ones(self, made: Made) -> None:
        for part in made.load():
            assert part.labels.dtype == np.uint8 and set(np.unique(part.labels)) == {0, 1}
            assert part.labels.shape == (len(part.inputs), len(part.label_names))

    def test_inputs_and_their_scale_fit_together(self, made: Made) -> None:
        train, test = made.load()
        if train.views.vocabulary:
            assert train.inputs.dtype == test.inputs.dtype == np.int32
            assert train.views == test.views and train.views.tokenizer
            assert max(train.inputs[:].max(), test.inputs[:].max()) < train.views.vocabulary
            assert max(train.inputs.lengths) <= train.input_shape[0] == 32
            return
        kind = np.dtype(np.uint8 if len(train.input_shape) == 3 else np.float32)
        assert train.inputs.dtype == test.inputs.dtype == kind
        assert len(train.views.mean) == len(train.views.std) == train.input_shape[0]
        assert min(train.views.std) > 0

    def test_loading_again_gives_the_same(self, made: Made) -> None:
        for ours, theirs in zip(made.load(), made.load(), strict=True):
            np.testing.assert_array_equal(np.asarray(ours.inputs), np.asarray(theirs.inputs))
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            assert ours.names == theirs.names

    def test_test_samples_are_labelled_and_names_are_unique(self, made: Made) -> None:
        train, test = made.load()
        assert test.is_labeled is None or test.is_labeled.all()
        for part in (train, test):
            assert part.names is None or len(set(part.names)) == len(part.labels)

    def test_what_nobody_has_labelled_has_no_labels(self, made: Made) -> None:
        train, _ = made.load()
        if train.is_labeled is not None:
            assert len(train.is_labeled) == len(train.labels)
            assert not train.labels[~train.is_labeled].any()

    def test_the_state_changes_with_the_data_alone(self, made: Made) -> None:
        before = made.dataset.state(made.options, made.folder)
        made.load()
        assert made.dataset.state(made.options, made.folder) == before
        if made.folder is None:
            return
        files = [made.folder] if made.folder.is_file() else made.folder.rglob("*")
        path = max(path for path in files if path.is_file())
        os.utime(path, ns=(0, 0))
        assert made.dataset.state(made.options, made.folder) != before

    def test_a_run_can_be_made_of_it(self, made: Made) -> None:
        values = {"dataset": made.dataset.name, **SMALL[made.dataset.name]}
        values |= {"labeled_fraction": 0.5, "data_dir": str(made.folder) if made.folder else None}
        config = run_config(values, "test")
        data, audit = prepare_training(config)
        rows = np.concatenate([data.labeled, data.validation, data.unlabeled])
        assert sorted(rows) == list(range(len(data.inputs)))
        assert len(data.labels) == len(data.labeled) > 0 and audit is not None
        assert data.inputs[data.labeled[:3]].shape == (3, *data.input_shape)

    def test_a_folder_that_is_not_there_is_named(self, made: Made, tmp_path: Path) -> None:
        if made.folder is None:
            return
        with pytest.raises(UsageError, match="nowhere"):
            made.dataset.check(made.options, tmp_path / "nowhere")


def test_samples_that_do_not_fit_together_are_refused() -> None:
    inputs, labels = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.uint8)
    assert Samples(inputs, labels, ("a", "b")).input_shape == (2,)
    for wrong in (
        lambda: Samples(inputs[:2], labels, ("a", "b")),
        lambda: Samples(inputs, labels, ("a", "b", "c")),
    ):
        refused(wrong, "do not fit together")
    refused(lambda: Samples(inputs, labels, ("a", "a")), "not unique")


def refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


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
