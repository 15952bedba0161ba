"""The bundled files of the published protocol: both commands take them, and no row of it is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bbam_ray.commands.space_files import bundled_folder, own_or_bundled, settings_of_file
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.scale.search.space_file import read_space

FOLDER = Path(__file__).parents[2] / "search_spaces"
FILES = sorted((FOLDER / "published").glob("*.yaml"))
#: data sets that each file is for
DATASETS = {
    "voc": ("voc2012", "voc"),
    "coco": ("coco2014", "coco"),
    "awa": ("awa",),
    "ohsumed": ("ohsumed",),
    "aapd": ("aapd",),
    "digits": ("digits",),
}
PAIRS = [(name, dataset) for name, datasets in DATASETS.items() for dataset in datasets]
IMAGES, TEXTS = ("voc", "coco", "awa", "digits"), ("ohsumed", "aapd")
#: the rows of the protocol, and what differs between data sets
ROWS: dict[str, dict[str, Any]] = {
    "main one-cycle": {"epochs": 40, "warmup_epochs": 12, "cycle_epochs": 40, "pct_start": 0.2},
    "momentum": {"cycle_momentum": True},
    "parameter groups": {"weight_decay": 1e-4},
    "warm-up batch": {"warmup_batch": 16},
    "average": {"ema_warmup": False, "ema_decay": 0.9997, "ema_restart": "trained"},
    "batches": {"batch_composition": "fraction", "unlabeled_weight": None},
    "precision": {"amp_dtype": "float16"},
    "order": {"shuffle": False},
    "kept weights": {"keep": "last"},
    "method": {
        "negative_ratio": 5,
        "statistics_momentum": 0.01,
        "positive_keep": 1.0,
        "negative_keep": 0.998,
    },
}
OWN: dict[str, dict[str, Any]] = {
    "voc": {"scale": 20, "margin": 0.4, "learning_rate": 5e-5, "warmup_learning_rate": 5e-5},
    "coco": {"scale": 20, "margin": 0.4, "learning_rate": 1e-4, "warmup_learning_rate": 1e-4},
    "awa": {"scale": 20, "margin": 0.4, "learning_rate": 1e-4, "warmup_learning_rate": 1e-4},
    "ohsumed": {"scale": 10, "margin": 0.2, "learning_rate": 1e-4, "warmup_learning_rate": 1e-4},
    "aapd": {"scale": 10, "margin": 0.4, "learning_rate": 1e-4, "warmup_learning_rate": 1e-4},
    # a network from scratch has its own rates
    "digits": {"scale": 20, "margin": 0.4, "ema_decay": 0.99},
}
for name in IMAGES:
    OWN[name] |= {"warmup_views": "both", "labeled_negatives": "first"}
    OWN[name] |= {"strong_view": "uda", "cutout": 0.5, "warmup_cutout": 0, "normalize": False}
for name in ("voc", "coco", "awa"):
    OWN[name] |= {"flip_when_scoring": True, "image_size": 224}
    OWN[name] |= {"backbone": "resnet50", "weights": "IMAGENET1K_V1"}
for name in TEXTS:
    OWN[name] |= {"warmup_views": "strong", "labeled_negatives": "all"}
    OWN[name] |= {"strong_magnitude": 0, "cutout": 0}
OWN["awa"]["ema_restart"] = "averaged"
BATCHES = {
    "voc": [(2, 30), (4, 28), (8, 24), (16, 16)],
    "coco": [(4, 60), (8, 56), (16, 48), (32, 32)],
    "digits": [(4, 60), (8, 56), (16, 48), (32, 32)],
    "awa": [(32, 96)] * 4,
    "ohsumed": [(4, 60), (8, 56), (12, 52), (16, 48)],
    "aapd": [(4, 60), (8, 56), (12, 52), (16, 48)],
}


def file_of(name: str) -> Path:
    return FOLDER / "published" / f"{name}.yaml"


def test_there_is_a_file_for_each_data_set_of_the_paper() -> None:
    assert [path.stem for path in FILES] == sorted(DATASETS)


@pytest.mark.parametrize(("name", "dataset"), PAIRS)
def test_a_file_sets_every_row_of_the_protocol_itself(name: str, dataset: str) -> None:
    """It names the settings, so that a changed default does not change what is published."""
    space = read_space(file_of(name), dataset, "bbam", {"labeled_fraction": 0.05})
    named = {**space.fixed, **space.published}
    expected = {key: value for row in ROWS.values() for key, value in row.items()} | OWN[name]
    assert {key: named.get(key, "missing") for key in expected} == expected


@pytest.mark.parametrize(("name", "dataset"), PAIRS)
def test_its_batches_follow_the_labelled_fraction(name: str, dataset: str) -> None:
    for fraction, sizes in zip((0.05, 0.1, 0.15, 0.2), BATCHES[name], strict=True):
        given = {"dataset": dataset, "labeled_fraction": fraction}
        settings = settings_of_file(file_of(name), given)
        common = run_config({**settings, **given}, "test").training
        assert (common.labeled_batch, common.unlabeled_batch) == sizes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_editors_accept_it(path: Path) -> None:
    first, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=../space.schema.json"
    jsonschema.validate(
        read_yaml_mapping(path), json.loads((FOLDER / "space.schema.json").read_text())
    )


@pytest.mark.parametrize(("name", "dataset"), PAIRS)
def test_a_run_of_the_file_has_the_configuration_of_trial_0(name: str, dataset: str) -> None:
    given = {"dataset": dataset, "labeled_fraction": 0.05}
    space = read_space(file_of(name), dataset, "bbam", given)
    trial = run_config({**space.fixed, **given, **space.published}, "trial 0").flat()
    messages: list[str] = []

    class Lines:
        message = staticmethod(messages.append)

    run = settings_of_file(file_of(name), given, Lines)  # type: ignore[arg-type]
    assert run_config({**run, **given}, "run").flat() == trial
    assert messages == [
        f"{file_of(name)} is a search space: this run has its published settings, as trial 0 has"
    ]


def test_a_search_over_epochs_stays_within_the_cycle(tmp_path: Path) -> None:
    content = (FOLDER / "published" / "digits.yaml").read_text().replace("  epochs: 40\n", "")
    content = content.replace("published:\n", "published:\n  epochs: 40\n")
    for high, refused in ((52, False), (60, True)):
        line = f"parameters:\n  epochs: {{type: int, low: 14, high: {high}}}\n"
        path = tmp_path / f"{high}.yaml"
        path.write_text(content.replace("parameters:\n", line))
        if not refused:
            assert read_space(path, "digits", "bbam", {}).published["epochs"] == 40
            continue
        with pytest.raises(UsageError, match=r"parameters\.epochs: cycle_epochs = 40 is less than"):
            read_space(path, "digits", "bbam", {})


# ------------------------------------------------------------ files of settings, of any kind


def test_any_search_space_gives_its_published_settings() -> None:
    space = read_space(FOLDER / "digits.yaml", "digits", "bbam", {})
    assert settings_of_file(FOLDER / "digits.yaml", {}) == {**space.fixed, **space.published}


def test_flat_settings_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text("dataset: digits\nscale: 12\n")
    assert settings_of_file(path, {}) == {"dataset": "digits", "scale": 12}


def test_a_space_of_another_method_or_with_a_defect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"digits\.yaml: parameters\.margin: unknown setting"):
        settings_of_file(FOLDER / "digits.yaml", {"method": "cap"})
    path = tmp_path / "mine.yaml"
    path.write_text("parameters: {margin: {type: float, low: 0.5, high: 0.1}}\npublished: {}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: parameters\.margin"):
        settings_of_file(path, {})


def test_settings_of_the_command_line_are_checked_together_with_those_of_the_file() -> None:
    file = file_of("voc")
    for given in ({"dataset": "voc"}, {"dataset": "voc2012", "labeled_fraction": 0.07}):
        with pytest.raises(UsageError, match=r"voc\.yaml: fixed: batch_composition = fraction"):
            settings_of_file(file, given)
    given = {"dataset": "voc", "batch_composition": "fixed", "scale": 9}
    settings = settings_of_file(file, given)
    assert (settings["batch_composition"], settings["scale"]) == ("fixed", 20)  # searched: later


def test_a_bundled_file_is_named_from_any_folder_unless_there_is_one_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("published") / "voc.yaml"
    assert own_or_bundled(name) == bundled_folder() / name
    assert own_or_bundled(Path("published") / "nowhere.yaml") == Path("published") / "nowhere.yaml"
    outside = Path("..") / FOLDER.name / "digits.yaml"
    assert own_or_bundled(outside) == outside
    long = Path("x" * 5000)
    assert own_or_bundled(long) == long
    name.parent.mkdir()
    name.write_text("scale: 3\n")
    assert own_or_bundled(name) == name
    assert settings_of_file(name, {}) == {"scale": 3}
