"""Scenes of handwritten digits: reproducible, cached whole, with disjoint sources for both parts."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bbam_ray.data.datasets import digits
from bbam_ray.data.datasets.base import Part
from bbam_ray.data.datasets.digits import DIGITS_PER_SCENE, Digits, DigitsOptions, compose_scenes
from bbam_ray.errors import UsageError

OPTIONS = DigitsOptions(scenes=60, test_scenes=40)
TARGETS = load_digits().target


def test_scenes_are_a_function_of_seed_and_part() -> None:
    images, labels = compose_scenes(60, 3, "train")
    assert images.shape == (60, 1, 24, 24) and images.dtype == np.uint8
    assert labels.shape == (60, 10) and labels.dtype == np.uint8
    again = compose_scenes(60, 3, "train")
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    for seed, part in ((4, "train"), (3, "test")):
        other, other_labels = compose_scenes(60, seed, part)
        assert (other != images).mean() > 0.5 and (other_labels != labels).any()


def test_scenes_show_one_to_four_digits_unevenly_frequent() -> None:
    _, labels = compose_scenes(3000, 0, "train")
    numbers = np.bincount(labels.sum(axis=1), minlength=6) / 3000
    np.testing.assert_allclose(numbers[1:5], DIGITS_PER_SCENE, atol=0.04)
    assert numbers[0] == numbers[5] == 0
    frequency = labels.mean(axis=0)
    assert frequency[0] > 2 * frequency[9] and frequency[9] > 0.03
    assert (frequency[:-3] > frequency[3:]).all()  # falling, up to chance


def marked_sources() -> Any:
    """The real digits, with the number of the source written into the first two rows of pixels."""
    sources = load_digits()
    bits = (np.arange(len(sources.target))[:, None] >> np.arange(16)) & 1
    sources.images[:, :2] = 16.0 * bits.reshape(-1, 2, 8)
    return sources


def shown_sources(
    part: Part, seed: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[set[int], np.ndarray, np.ndarray]:
    """Numbers of all sources in the scenes, the digits that they show, and the labels."""
    placed: list[torch.Tensor] = []
    place = digits._compose

    def spy(patches: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        placed.append(patches.clone())
        return place(patches, *rest)

    monkeypatch.setattr("sklearn.datasets.load_digits", marked_sources)
    monkeypatch.setattr(digits, "_compose", spy)
    _, labels = compose_scenes(1500, seed, part)
    monkeypatch.undo()
    patches = torch.cat(placed)
    number = (patches[:, :, :2].flatten(2) @ (2.0 ** torch.arange(16))).long().numpy()
    visible = patches.flatten(2).any(dim=2).numpy()
    shown = np.zeros_like(labels)
    for scene, place_in_scene in zip(*np.nonzero(visible), strict=True):
        shown[scene, TARGETS[number[scene, place_in_scene]]] = 1
    return set(number[visible].tolist()), shown, labels


def test_no_handwriting_of_a_test_scene_is_in_a_training_scene(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = {"train": set[int](), "test": set[int]()}
    for part in used:
        for seed in (0, 1):
            sources, shown, labels = shown_sources(part, seed, monkeypatch)
            used[part] |= sources
            np.testing.assert_array_equal(shown, labels)  # a scene shows what its labels say
    assert not used["train"] & used["test"]
    assert len(used["train"]) > 900 and len(used["test"]) > 600  # most of 1,078 and 719
    for sources in used.values():
        assert set(TARGETS[sorted(sources)]) == set(range(10))


def test_the_scenes_are_made_once_and_kept_whole(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int, str]] = []

    def counted(count: int, seed: int, part: Part, decay: float) -> tuple[np.ndarray, np.ndarray]:
        calls.append((count, seed, part))
        return compose_scenes(count, seed, part, decay)

    monkeypatch.setattr(digits, "compose_scenes", counted)
    first, second = (Digits().load(OPTIONS, None, "train") for _ in range(2))
    Digits().load(OPTIONS, None, "test")
    Digits().load(OPTIONS.model_copy(update={"scene_seed": 1}), None, "train")
    assert calls == [(60, 0, "train"), (40, 0, "test"), (60, 1, "train")]
    images, labels = compose_scenes(60, 0, "train")
    for samples in (first, second):
        np.testing.assert_array_equal(samples.inputs, images)
        np.testing.assert_array_equal(samples.labels, labels)
        assert samples.label_names == tuple("0123456789")
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) == 3 and all(path.suffix == ".npz" for path in files)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_the_frequencies_of_labels_follow_the_option(decay: float) -> None:
    """More scenes than this have other files: those of two decays never meet."""
    samples = Digits().load(DigitsOptions(scenes=3000, label_decay=decay), None, "train")
    share = samples.labels.mean(0)
    if decay == 1:
        assert share.max() / share.min() < 1.25
    else:
        assert (np.diff(share) < 0).all() and share[0] / share[9] > 20
    usual = Digits().load(DigitsOptions(scenes=3000), None, "train")
    assert 1.5 < usual.labels.mean(0)[0] / usual.labels.mean(0)[9] < 4
    assert Digits().state(DigitsOptions(label_decay=decay), None) != Digits().state(OPTIONS, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIGITS_PER_SCENE", (0.1, 0.2, 0.3, 0.4)),
        ("NOISE", 0.1),
        ("_TEST_SOURCES", 0.2),
    ],
)
def test_a_changed_recipe_does_not_meet_scenes_kept_from_the_old_one(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number in the file name that has to be raised by hand was forgotten once already."""
    Digits().load(OPTIONS, None, "train")
    monkeypatch.setattr(digits, name, value)
    samples = Digits().load(OPTIONS, None, "train")
    images, labels = compose_scenes(60, 0, "train")
    np.testing.assert_array_equal(samples.labels, labels)
    np.testing.assert_array_equal(samples.inputs, images)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing_behind(
    failure: BaseException, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(handle: Any, **arrays: np.ndarray) -> NoReturn:
        handle.write(b"half of it")
        raise failure

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises((UsageError, KeyboardInterrupt)) as caught:
        Digits().load(OPTIONS, None, "train")
    if isinstance(failure, OSError):
        assert caught.type is UsageError and "No space left" in str(caught.value)
    monkeypatch.undo()
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_torn_temporary_file_is_never_used(cache: Path) -> None:
    Digits().load(OPTIONS, None, "train")
    (stored,) = (cache / "digits").iterdir()
    torn = stored.with_name(f".{stored.name}.4711")  # as a killed process leaves it
    torn.write_bytes(stored.read_bytes()[:100])
    stored.unlink()
    samples = Digits().load(OPTIONS, None, "train")
    np.testing.assert_array_equal(samples.inputs, compose_scenes(60, 0, "train")[0])


def test_a_cache_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, *args: Any, **kwargs: Any) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(UsageError, match=r"Permission denied.*BBAM_RAY_CACHE"):
        Digits().load(OPTIONS, None, "train")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_cache_folder_that_is_a_file_is_named(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "taken" / below))
    with pytest.raises(UsageError, match=r"taken.*BBAM_RAY_CACHE"):
        Digits().load(OPTIONS, None, "train")
