"""Configuration: strict, frozen, and clear about what is wrong."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bbam_ray.config import TrainingConfig
from bbam_ray.data import DATASETS
from bbam_ray.documents import parse_assignments, parse_yaml, read_yaml_mapping
from bbam_ray.errors import UsageError, nearest
from bbam_ray.methods import METHODS, known_settings, run_config

PAIRS = list(product(DATASETS, METHODS))
PARTS = [
    TrainingConfig,
    *(dataset.Options for dataset in DATASETS.values()),
    *(method.Options for method in METHODS.values()),
]


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        run_config(values, "somewhere")
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------ defects in one sentence


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("scal", "scale"), ("epoch", "epochs"), ("sceness", "scenes"), ("learning-rate", None)],
)
def test_an_unknown_key_is_named_with_its_nearest_neighbour(wrong: str, right: str | None) -> None:
    message = refusal({wrong: 1})
    assert message.startswith("somewhere: unknown")
    assert f"'{wrong}'" in message
    assert f"did you mean '{right or 'learning_rate'}'?" in message


def test_a_key_like_no_other_lists_the_known_ones() -> None:
    assert nearest("zzzzzz", ["scale", "margin"]) == "known: margin, scale"


@pytest.mark.parametrize("key", ["clamp", "positive_keep"])
def test_a_setting_of_another_method_is_unknown(key: str) -> None:
    message = refusal({"method": "supervised", key: True})
    assert key in message and "supervised" in message
    assert "it belongs to method" in message and "bbam" in message


def test_a_setting_of_another_data_set_names_its_owners_and_what_exists() -> None:
    message = refusal({"image_size": 64})
    assert (
        "it belongs to data set awa and voc2012 and coco2014 and voc and coco and images; "
        in message
    )
    assert "`bbam-ray settings` lists all" in message


@pytest.mark.parametrize(
    ("values", "word"),
    [({"dataset": "digit"}, "digits"), ({"method": "bban"}, "bbam")],
)
def test_an_unknown_data_set_or_method_names_the_nearest(values: dict, word: str) -> None:
    assert f"did you mean '{word}'?" in refusal(values)


@pytest.mark.parametrize("values", [{"dataset": ["digits"]}, {"method": {"name": "bbam"}}])
def test_a_data_set_or_method_that_is_no_text_is_wrong_usage(values: dict[str, Any]) -> None:
    refusal(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", -3),
        ("scale", 101),
        ("margin", 5),
        ("margin", "high"),
        ("labeled_fraction", 0),
        ("labeled_fraction", 1),
        ("labeled_fraction", float("nan")),
        ("learning_rate", float("inf")),
        ("epochs", 0),
        ("epochs", 2.5),
        ("ema_decay", 1),
        ("scenes", 1),
        ("device", "tpu"),
        ("seed", -1),
        ("negative_ratio", -1),
        ("negative_ratio", float("nan")),
    ],
)
def test_a_value_out_of_range_names_field_and_value(name: str, value: Any) -> None:
    assert f"{name} = {value!r}" in refusal({name: value})


@pytest.mark.parametrize("name", ["margin", "scale", "learning_rate", "labeled_batch"])
def test_a_truth_value_is_not_taken_for_the_number_1(name: str) -> None:
    """YAML reads ``--set margin=on`` as true; silently training with margin 1 helps nobody."""
    assert name in refusal({name: True})


def test_a_warm_up_longer_than_the_run_is_refused_with_the_way_out() -> None:
    message = refusal({"epochs": 2, "warmup_epochs": 3})
    assert "warmup_epochs = 3" in message and "epochs = 2" in message
    assert run_config({"epochs": 3, "warmup_epochs": 3}, "").training.warmup_epochs == 3


def test_keeping_no_pseudo_label_at_all_is_refused() -> None:
    assert "positive_keep" in refusal({"positive_keep": 0, "negative_keep": 0})


# ------------------------------------------------------------------ numbers and YAML


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("1e-4", 1e-4), ("1E5", 1e5), ("+2e3", 2e3), ("-1e-3", -1e-3), ("1.5e2", 150.0)),
        *((".5", 0.5), ("5.", 5.0), ("-.25", -0.25), (".inf", float("inf")), ("3", 3)),
    ],
)
def test_numbers_are_numbers_in_files_and_in_set(text: str, number: float) -> None:
    for value in (parse_yaml(f"a: {text}", "f")["a"], parse_assignments([f"a={text}"])["a"]):
        assert isinstance(value, (int, float))
        assert value == number


@pytest.mark.parametrize("text", ["abc", "1.2.3", "e5", "1e", "1e-", "--", ".", "1e4x", "v1e4"])
def test_what_is_no_number_stays_text(text: str) -> None:
    assert parse_assignments([f"a={text}"]) == {"a": text}
    assert parse_yaml(f"a: {text}", "f") == {"a": text}


def test_a_syntax_error_names_source_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("epochs: 3\nscale: 20\nmargin: [1, 2\n")
    with pytest.raises(UsageError, match=r"broken\.yaml line \d+: not valid YAML"):
        read_yaml_mapping(path)
    with pytest.raises(UsageError, match="file line 2"):
        parse_yaml("a: 1\nb: ]", "file")


@pytest.mark.parametrize("text", ["2024-13-45", "0b_", "0x_", "!!python/object:os.system {}"])
def test_text_that_only_resembles_a_value_is_wrong_usage_or_text(text: str) -> None:
    try:
        value = parse_yaml(text, "--set a")
    except UsageError:
        return
    assert value == text


@pytest.mark.parametrize("content", [b"- 1\n", b"text", b"", b"1: 2\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_mapping_is_wrong_usage(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"other\.yaml"):
        read_yaml_mapping(path)


@pytest.mark.parametrize("assignment", ["scale", "=3", ""])
def test_set_needs_key_and_value(assignment: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_assignments([assignment])
    assert parse_assignments(["a=b=c", "d="]) == {"a": "b=c", "d": None}


# ------------------------------------------------------------------ what holds for every part


@pytest.mark.parametrize(("dataset", "method"), PAIRS)
def test_field_names_are_unique_over_the_parts_of_a_run(dataset: str, method: str) -> None:
    parts = (TrainingConfig, DATASETS[dataset].Options, METHODS[method].Options)
    names = [name for part in parts for name in part.model_fields]
    assert len(names) == len(set(names))
    assert set(known_settings(dataset, method)) == set(names)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_says_what_it_is(part: type[TrainingConfig]) -> None:
    for name, field in part.model_fields.items():
        assert field.description and len(field.description) > 5, name


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_a_configuration_cannot_be_changed(part: type[TrainingConfig]) -> None:
    options = part()
    for name in part.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(options, name, getattr(options, name))


@pytest.mark.parametrize(("dataset", "method"), PAIRS)
def test_the_flat_settings_build_the_same_run_again(dataset: str, method: str) -> None:
    given = {"dataset": dataset, "method": method, "seed": 3, "data_dir": Path("some") / "where"}
    flat = run_config(given, "").flat()
    assert (flat["seed"], flat["data_dir"]) == (3, "some/where")
    assert run_config(flat, "again").flat() == flat


def test_given_values_win_over_the_data_set_which_wins_over_the_general_defaults() -> None:
    common = run_config({"epochs": 77}, "").training
    assert common.epochs == 77
    assert common.hidden_dim == DATASETS["digits"].defaults["hidden_dim"]
    assert common.weight_decay == TrainingConfig.model_fields["weight_decay"].default
