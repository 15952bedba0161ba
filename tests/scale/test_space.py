"""Search space files: everything that can be wrong is found, and named, before anything starts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bbam_ray.data import DATASETS
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS, run_config
from bbam_ray.scale.search.space import Parameter, Space
from bbam_ray.scale.search.space_file import RESERVED, read_space
from bbam_ray.scale.search.space_schema import space_schema

FOLDER = Path(__file__).parents[2] / "search_spaces"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
GOOD: dict[str, Any] = {
    "parameters": {
        "margin": {"type": "float", "low": 0.1, "high": 0.5},
        "clamp": {"type": "categorical", "choices": [True, False], "when": {"balance": True}},
        "balance": {"type": "categorical", "choices": [True, False]},
        "warmup_epochs": {"type": "int", "low": 2, "high": 6, "step": 2},
    },
    "published": {"margin": 0.4, "balance": True, "clamp": False, "warmup_epochs": 4},
}


@pytest.fixture(scope="module", autouse=True)
def _quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def changed(**replaced: Any) -> dict[str, Any]:
    """The good space with some top-level keys replaced; None removes one."""
    return {k: v for k, v in {**GOOD, **replaced}.items() if v is not None}


def with_parameter(name: str, given: Any, published: Any) -> dict[str, Any]:
    """The good space with one parameter more."""
    return changed(
        parameters={**GOOD["parameters"], name: given},
        published={**GOOD["published"], name: published},
    )


def read(content: Any, folder: Path, **overrides: Any) -> Space:
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return read_space(path, "digits", "bbam", overrides)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_space_is_right_and_its_published_trial_is_a_possible_run(path: Path) -> None:
    dataset, _, method = path.stem.partition(".")
    if dataset in METHODS:  # for data sets without a file of their own
        dataset, method = "digits", dataset
    method = method or "bbam"
    assert dataset in DATASETS and method in METHODS
    space = read_space(path, dataset, method, {})
    assert path.read_text().startswith("#")
    config = run_config(
        {"dataset": dataset, "method": method, **space.fixed, **space.published}, "published"
    )
    flat = config.flat()
    for name, value in space.published.items():
        assert flat[name] == value
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = space.suggest(study.ask())
        run_config({"dataset": dataset, "method": method, **space.fixed, **values}, "draw")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_editors_accept_a_shipped_space(path: Path) -> None:
    first, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=space.schema.json"
    schema = json.loads((FOLDER / "space.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read_yaml_mapping(path), schema)


def test_the_schema_file_is_up_to_date() -> None:
    """Update it with: python -m bbam_ray.scale.search.space_schema > search_spaces/space.schema.json"""
    assert json.loads((FOLDER / "space.schema.json").read_text()) == space_schema()


@pytest.mark.parametrize(
    "content",
    [
        {**GOOD, "parametres": {}},
        {k: v for k, v in GOOD.items() if k != "published"},
        {**GOOD, "parameters": {}},
        {**GOOD, "parameters": {"margn": GOOD["parameters"]["margin"]}},
        {**GOOD, "parameters": {"margin": {"type": "float", "low": 0.1}}},
        {**GOOD, "parameters": {"margin": {"type": "flaot", "low": 0.1, "high": 0.5}}},
        {**GOOD, "parameters": {"margin": {"type": "float", "low": "0.1", "high": 0.5}}},
        {**GOOD, "parameters": {"balance": {"type": "categorical", "choices": []}}},
        {**GOOD, "mode": "highest"},
        {**GOOD, "metric": "val_mapp"},
        {**GOOD, "metric": "seconds_per_epoch"},
        {**GOOD, "fixed": {"seed": 3}},
    ],
)
def test_editors_mark_what_the_reader_refuses(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, space_schema())
    with pytest.raises(UsageError):
        read(yaml.safe_dump(content), tmp_path)
    jsonschema.validate(GOOD, space_schema())


@pytest.mark.parametrize(
    ("metric", "mode", "objectives"),
    [
        ("[val_map]", "[max]", (("val_map", "max"),)),
        (
            "[val_map, seconds_per_epoch]",
            "[max, min]",
            (("val_map", "max"), ("seconds_per_epoch", "min")),
        ),
    ],
)
def test_several_objectives_are_a_list(
    metric: str, mode: str, objectives: Any, tmp_path: Path
) -> None:
    text = yaml.safe_dump(GOOD)
    space = read(f"metric: {metric}\nmode: {mode}\n{text}", tmp_path)
    assert space.objectives == objectives
    assert (space.metric, space.mode) == objectives[0]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("metric: [val_map, val_one_error]\nmode: max\n", ["list of 2 values"]),
        ("metric: [val_map, val_one_error]\nmode: [max]\n", ["2 objectives"]),
        ("metric: [val_map, val_map]\nmode: [max, max]\n", ["duplicate"]),
        ("metric: [val_map, second_per_epoch]\nmode: [max, min]\n", ["seconds_per_epoch"]),
        ("metric: [seconds_per_epoch, val_map]\nmode: [min, max]\n", ["seconds_per_epoch"]),
        ("metric: [val_map, val_one_error]\nmode: [max, least]\n", ["least"]),
        ("metric: []\nmode: []\n", ["0 objectives"]),
        ("also: [[val_one_error, min]]\n", ["unknown key 'also'"]),
    ],
)
def test_objectives_that_make_no_sense_are_refused(
    head: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        read(head + yaml.safe_dump(GOOD), tmp_path)
    assert all(word in str(error.value) for word in words), error.value


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    space = read(
        "parameters: {learning_rate: {type: float, low: 1e-4, high: 1E-2, log: true}}\n"
        "published: {learning_rate: 8e-3}\n",
        tmp_path,
    )
    assert space.parameters["learning_rate"].low == 1e-4
    assert space.published == {"learning_rate": 8e-3}


FLOAT = {"type": "float", "low": 1, "high": 2}
DEFECTS: dict[str, tuple[Any, list[str]]] = {
    "unknown top key": (changed(paramters={}), ["'paramters'", "did you mean 'parameters'?"]),
    "unknown parameter": (with_parameter("scal", FLOAT, 1), ["parameters.scal", "'scale'?"]),
    "unknown published": (changed(published={"margn": 1}), ["published.margn", "'margin'?"]),
    "unknown fixed": (changed(fixed={"epoch": 3}), ["fixed.epoch", "'epochs'?"]),
    "a name that is no text": (with_parameter(3, FLOAT, 1), ["parameters.3"]),
    "low above high": (
        with_parameter("scale", {"type": "float", "low": 9, "high": 3}, 5),
        ["parameters.scale", "low = 9", "high = 3"],
    ),
    "log from 0": (
        with_parameter("scale", {"type": "float", "low": 0, "high": 3, "log": True}, 1),
        ["parameters.scale", "log", "low = 0"],
    ),
    "log with a negative low": (
        with_parameter("scale", {"type": "float", "low": -1, "high": 3, "log": True}, 1),
        ["parameters.scale", "log", "low = -1"],
    ),
    "log and step": (
        with_parameter("scale", {"type": "float", "low": 1, "high": 3, "log": True, "step": 1}, 1),
        ["parameters.scale", "log", "step"],
    ),
    "int with log and step": (
        with_parameter("epochs", {"type": "int", "low": 6, "high": 9, "log": True, "step": 3}, 6),
        ["parameters.epochs", "log", "step"],
    ),
    "step 0": (with_parameter("scale", FLOAT | {"step": 0}, 1), ["parameters.scale", "step", "0"]),
    "infinite step": (
        with_parameter("scale", FLOAT | {"step": math.inf}, 1),
        ["parameters.scale", "step"],
    ),
    "infinite bound": (
        with_parameter("scale", {"type": "float", "low": 1, "high": math.inf}, 1),
        ["parameters.scale", "finite"],
    ),
    "no high": (
        with_parameter("scale", {"type": "float", "low": 1}, 1),
        ["parameters.scale", "'high'"],
    ),
    "fraction in an int": (
        with_parameter("epochs", {"type": "int", "low": 6.5, "high": 9}, 7),
        ["parameters.epochs", "whole"],
    ),
    "float range of an int setting": (
        with_parameter("epochs", {"type": "float", "low": 6, "high": 9}, 6),
        ["epochs"],
    ),
    "published out of range": (
        changed(published={**GOOD["published"], "margin": 0.6}),
        ["published.margin", "0.6"],
    ),
    "published off the steps": (
        changed(published={**GOOD["published"], "warmup_epochs": 3}),
        ["published.warmup_epochs", "3"],
    ),
    "published off the steps of a float": (
        with_parameter("scale", {"type": "float", "low": 1, "high": 2, "step": 0.5}, 1.2),
        ["published.scale", "1.2"],
    ),
    "published no choice": (
        changed(published={**GOOD["published"], "balance": 1}),
        ["published.balance", "1"],
    ),
    "published missing": (
        changed(published={"margin": 0.4, "balance": False}),
        ["published.warmup_epochs", "missing"],
    ),
    "published of an active condition missing": (
        changed(published={"margin": 0.4, "balance": True, "warmup_epochs": 4}),
        ["published.clamp", "missing"],
    ),
    "published though inactive": (
        changed(published={**GOOD["published"], "balance": False}),
        ["published.clamp", "'when'"],
    ),
    "published not searched": (
        changed(published={**GOOD["published"], "scale": 20}),
        ["published.scale", "not searched"],
    ),
    "no published": (changed(published=None), ["published"]),
    "unknown key in a parameter": (
        with_parameter("scale", FLOAT | {"hihg": 3}, 1),
        ["parameters.scale", "'hihg'", "did you mean 'high'?"],
    ),
    "a key in a parameter that is no text": (
        with_parameter("scale", FLOAT | {1: 2}, 1),
        ["parameters.scale", "1"],
    ),
    "unknown type": (
        with_parameter("scale", {"type": "flot", "low": 1, "high": 2}, 1),
        ["parameters.scale", "type = 'flot'"],
    ),
    "text for a number": (
        with_parameter("scale", {"type": "float", "low": "a", "high": 2}, 1),
        ["parameters.scale", "low = 'a'"],
    ),
    "when on a setting that is not searched": (
        with_parameter("scale", FLOAT | {"when": {"balanc": True}}, 1),
        ["parameters.scale.when", "'balanc'", "'balance'?"],
    ),
    "when on a value that never comes": (
        with_parameter("scale", FLOAT | {"when": {"balance": "yes"}}, 1),
        ["parameters.scale.when", "balance", "'yes'"],
    ),
    "when on a value out of range": (
        with_parameter("scale", FLOAT | {"when": {"margin": 0.7}}, 1),
        ["parameters.scale.when", "margin", "0.7"],
    ),
    "cycle": (
        changed(
            parameters={
                "scale": FLOAT | {"when": {"margin": 1}},
                "margin": FLOAT | {"when": {"scale": 1}},
            },
            published={},
        ),
        ["margin, scale", "cycle"],
    ),
    "mixed choices": (
        with_parameter("scale", {"type": "categorical", "choices": [1, "a"]}, 1),
        ["parameters.scale", "mix", "'a'"],
    ),
    "truth values among numbers": (
        with_parameter("scale", {"type": "categorical", "choices": [1, True]}, 1),
        ["parameters.scale", "mix"],
    ),
    "a choice twice": (
        with_parameter("scale", {"type": "categorical", "choices": [2, 2]}, 2),
        ["parameters.scale", "duplicate"],
    ),
    "no choices": (
        with_parameter("scale", {"type": "categorical", "choices": []}, 1),
        ["parameters.scale", "'choices'"],
    ),
    "choices and a range": (
        with_parameter("scale", FLOAT | {"choices": [1, 2]}, 1),
        ["parameters.scale", "'choices'"],
    ),
    "searched and fixed": (changed(fixed={"margin": 0.2}), ["margin", "searched and fixed"]),
    "nothing searched": (changed(parameters={}, published={}), ["parameters", "nothing to search"]),
    "parameters no mapping": (changed(parameters=["margin"]), ["parameters", "mapping"]),
    "a parameter no mapping": (with_parameter("scale", 3, 3), ["parameters.scale", "type"]),
    "no mapping at all": ("- margin\n", ["key: value"]),
    "empty": ("", ["key: value"]),
    "not YAML": ("parameters: [\n", ["line", "YAML"]),
    "an impossible date": ("parameters: 2024-13-45\n", ["parameters"]),
    "bound outside the setting's own range": (
        changed(
            parameters={"margin": {"type": "float", "low": 0.1, "high": 5}},
            published={"margin": 0.2},
        ),
        ["parameters.margin", "5"],
    ),
    "choice that the setting cannot have": (
        with_parameter("device", {"type": "categorical", "choices": ["cpu", "tpu"]}, "cpu"),
        ["parameters.device", "'tpu'"],
    ),
    "start is no list": (changed(start={"margin": 0.2}), ["start must be a list"]),
    "start of no mappings": (changed(start=[3]), ["start[0]", "mapping"]),
    "unknown name in start": (changed(start=[{"margn": 1}]), ["start[0].margn", "'margin'?"]),
    "start of a fixed setting": (changed(start=[{"scale": 9}]), ["start[0].scale", "not searched"]),
    "start out of range": (
        changed(start=[{"margin": 0.2}, {"margin": 0.9}]),
        ["start[1].margin", "0.9", "range"],
    ),
    "start of an inactive parameter": (
        changed(start=[{"balance": False, "clamp": True}]),
        ["start[0].clamp", "'when' condition"],
    ),
    "start without an active parameter": (
        changed(
            published={"margin": 0.4, "balance": False, "warmup_epochs": 4},
            start=[{"balance": True}],
        ),
        ["start[0].clamp is missing"],
    ),
    "start equal to published": (changed(start=[{"margin": 0.4}]), ["start[0]", "remove it"]),
    "start twice": (changed(start=[{"margin": 0.3}, {"margin": 0.3}]), ["start[1]", "remove it"]),
    "fixed value out of range": (changed(fixed={"scale": -1}), ["fixed", "scale = -1"]),
    "unknown metric": (changed(metric="val_mp"), ["metric", "'val_mp'", "'val_map'?"]),
    "measure of the test part": (changed(metric="test_map"), ["metric", "'test_map'"]),
    "loss maximised": (
        changed(metric="val_hamming_loss", mode="max"),
        ["mode", "val_hamming_loss", "use min"],
    ),
    "metric minimised": (changed(mode="min"), ["mode", "val_map", "use max"]),
    "unknown mode": (changed(mode="maximum"), ["mode = 'maximum'"]),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_with_file_key_and_value(defect: str, tmp_path: Path) -> None:
    content, words = DEFECTS[defect]
    with pytest.raises(UsageError) as caught:
        read(content, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in ["mine.yaml", *words]:
        assert word in message


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("section", ["parameters", "published", "fixed"])
def test_a_reserved_name_belongs_on_the_command_line(
    name: str, section: str, tmp_path: Path
) -> None:
    content = {**GOOD, section: {**GOOD.get(section, {}), name: 1}}
    with pytest.raises(UsageError, match=rf"mine\.yaml: {section}\.{name}.*command line"):
        read(content, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        read_space(tmp_path / "nowhere.yaml", "digits", "bbam", {})


# ------------------------------------------------------------------ drawing and conditions


def test_an_inactive_parameter_is_left_out_and_conditions_come_first(tmp_path: Path) -> None:
    space = read(GOOD, tmp_path)
    names = list(space.parameters)
    assert names.index("balance") < names.index("clamp")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    draws = [space.suggest(study.ask()) for _ in range(30)]
    assert {d["balance"] for d in draws} == {True, False}
    for draw in draws:
        assert ("clamp" in draw) == draw["balance"]
        assert draw["warmup_epochs"] in (2, 4, 6)
        assert 0.1 <= draw["margin"] <= 0.5


def test_kinds_are_those_of_the_columns(tmp_path: Path) -> None:
    extra = {"type": "categorical", "choices": [2, 5.5, math.inf]}
    space = read(with_parameter("negative_ratio", extra, 2), tmp_path)
    assert space.kinds == {
        "margin": "float",
        "balance": "bool",
        "clamp": "bool",
        "warmup_epochs": "int",
        "negative_ratio": "float",
    }


def test_a_configuration_may_have_an_infinite_choice(tmp_path: Path) -> None:
    choices = {"type": "categorical", "choices": [2, 5.5, math.inf]}
    content = with_parameter("negative_ratio", choices, 2)
    space = read(content | {"start": [{"negative_ratio": math.inf}]}, tmp_path)
    assert space.start[0]["negative_ratio"] == math.inf
    space = read(with_parameter("negative_ratio", choices, math.inf), tmp_path)
    assert space.published["negative_ratio"] == math.inf
    for value in (math.nan, -math.inf):
        with pytest.raises(UsageError, match="negative_ratio"):
            read(content | {"start": [{"negative_ratio": value}]}, tmp_path)


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (Parameter(type="float", low=0, high=1), [0, 0.5, 1], [-0.1, 1.1, True, "a", math.nan]),
        (Parameter(type="int", low=1, high=3), [1, 3, 2.0], [0, 4, 1.5, True]),
        (Parameter(type="categorical", choices=(True,)), [True], [1, False, "True"]),
        (Parameter(type="categorical", choices=(1, 2.5)), [1, 1.0, 2.5], [True, 2]),
    ],
)
def test_holds_tells_what_lies_in_a_range(
    parameter: Parameter, inside: list[Any], outside: list[Any]
) -> None:
    assert all(parameter.holds(value) for value in inside)
    assert not any(parameter.holds(value) for value in outside)


# ------------------------------------------------------------------ settings of the command line


def test_a_setting_of_the_command_line_leaves_the_search(tmp_path: Path) -> None:
    space = read(GOOD, tmp_path, margin=0.3, epochs=9, seed=4)
    assert "margin" not in space.parameters and "margin" not in space.published
    assert space.fixed == {"margin": 0.3, "epochs": 9}  # the seed is no part of a space
    assert space.published == {"balance": True, "clamp": False, "warmup_epochs": 4}


def test_configurations_of_start_take_what_they_leave_out_from_published(tmp_path: Path) -> None:
    space = read(changed(start=[{"margin": 0.2}, {"balance": False}]), tmp_path)
    assert space.start == (
        {"margin": 0.2, "balance": True, "clamp": False, "warmup_epochs": 4},
        {"margin": 0.4, "balance": False, "warmup_epochs": 4},
    )
    assert space.first == (space.published, *space.start)
    assert read(GOOD, tmp_path).start == ()


def test_the_command_line_reduces_configurations_of_start(tmp_path: Path) -> None:
    content = changed(
        start=[{"margin": 0.2}, {"margin": 0.2, "balance": False}, {"balance": False}]
    )
    space = read(content, tmp_path, balance=False)
    # What --set decides is the same in all of them, and no configuration is run twice.
    assert space.published == {"margin": 0.4, "warmup_epochs": 4}
    assert space.start == ({"margin": 0.2, "warmup_epochs": 4},)


def test_a_condition_that_cannot_hold_any_more_takes_its_parameter_out(tmp_path: Path) -> None:
    space = read(GOOD, tmp_path, balance=False)
    assert set(space.parameters) == {"margin", "warmup_epochs"} == set(space.published)


def test_a_condition_that_always_holds_is_none_any_more(tmp_path: Path) -> None:
    inactive = changed(published={"margin": 0.4, "balance": False, "warmup_epochs": 4})
    space = read(inactive, tmp_path, balance=True)
    assert space.parameters["clamp"].when == {}
    assert space.parameters["clamp"].holds(space.published["clamp"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert set(space.suggest(study.ask())) == {"margin", "clamp", "warmup_epochs"}
    assert set(space.published) == set(space.parameters)


def test_what_depends_on_a_parameter_that_left_leaves_too(tmp_path: Path) -> None:
    content = with_parameter("scale", FLOAT | {"when": {"clamp": False}}, 1)
    assert set(read(content, tmp_path, balance=False).parameters) == {"margin", "warmup_epochs"}
    kept = read(content, tmp_path, clamp=False)
    assert kept.parameters["scale"].when == {}
    assert set(kept.published) == set(kept.parameters) == {*GOOD["parameters"], "scale"} - {"clamp"}


def test_a_range_that_the_command_line_makes_impossible_is_refused(tmp_path: Path) -> None:
    """With 4 epochs a warm-up of 6, the end of its range, would be a trial that fails."""
    with pytest.raises(UsageError, match="warmup_epochs"):
        read(GOOD, tmp_path, epochs=4)
    assert set(read(GOOD, tmp_path, epochs=6).parameters) == set(GOOD["parameters"])
    assert "warmup_epochs" not in read(GOOD, tmp_path, epochs=4, warmup_epochs=2).parameters


def test_a_range_is_judged_beside_the_published_values_of_the_others(tmp_path: Path) -> None:
    """2 epochs go with a warm-up of 1 or 2, though not with the longer one of the data set."""
    content = changed(
        parameters={
            "epochs": {"type": "int", "low": 2, "high": 9},
            "warmup_epochs": {"type": "int", "low": 1, "high": 2},
        },
        published={"epochs": 9, "warmup_epochs": 1},
    )
    assert set(read(content, tmp_path).parameters) == {"epochs", "warmup_epochs"}


def test_a_search_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave at least one to search"):
        read(GOOD, tmp_path, margin=0.3, balance=False, warmup_epochs=2)


# ------------------------------------------------------------------ anything at all

NUMBERS = st.one_of(st.integers(-3, 50), st.sampled_from([0.5, 1e-3, 0.0, math.inf, math.nan]))
SCALARS = st.one_of(NUMBERS, st.booleans(), st.none(), st.sampled_from(["a", "float", "1.2.3", ""]))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.one_of(st.sampled_from(["low", "scale", "when"]), SCALARS), inner, max_size=3
        )
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(["margin", "scale", "balance", "clamp", "epochs", "device", "seed", "x"])
RANGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["float", "int"]), "low": NUMBERS, "high": NUMBERS},
    optional={
        "log": st.booleans(),
        "step": NUMBERS,
        "when": st.dictionaries(NAMES, SCALARS, max_size=2) | ANYTHING,
    },
)
CHOICES = st.fixed_dictionaries(
    {"type": st.just("categorical"), "choices": st.lists(SCALARS, max_size=3) | ANYTHING}
)
BODIES = st.dictionaries(
    st.sampled_from(["type", "low", "choices", "when", 1, True, None, 0.5]), SCALARS, min_size=1
)
SPACES = st.fixed_dictionaries(
    {
        "parameters": st.dictionaries(NAMES, RANGES | CHOICES | BODIES | ANYTHING, max_size=3),
        "published": st.dictionaries(NAMES, SCALARS, max_size=3) | ANYTHING,
    },
    optional={"fixed": ANYTHING, "metric": ANYTHING, "mode": ANYTHING, "more": ANYTHING},
)
LIKELY = RANGES.map(
    lambda given: {"parameters": {"scale": given}, "published": {"scale": given["low"]}}
)
FUZZ = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@FUZZ
@given(content=SPACES | ANYTHING)
def test_no_file_raises_anything_but_a_usage_error(
    content: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        read(content, tmp_path_factory.getbasetemp())
    except UsageError as error:
        assert str(error)


@FUZZ
@given(content=LIKELY)
def test_a_space_that_is_accepted_can_be_drawn_from(
    content: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Optuna takes the published values, and every draw is a possible configuration."""
    try:
        space = read(content, tmp_path_factory.getbasetemp())
    except UsageError:
        return
    ranges = {name: space.parameters[name].distribution() for name in space.published}
    optuna.trial.create_trial(value=0.0, params=space.published, distributions=ranges)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        run_config(space.suggest(study.ask()), "draw")
