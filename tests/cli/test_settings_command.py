"""``bbam-ray settings`` and the page of all settings agree with the configuration of runs."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.commands.settings import SettingRow, setting_rows, settings_markdown
from bbam_ray.config import Options, TrainingConfig
from bbam_ray.data import DATASETS
from bbam_ray.errors import UsageError
from bbam_ray.methods import METHODS, run_config

CLASSES: dict[str, type[Options]] = {
    "common": TrainingConfig,
    **{f"method {name}": method.Options for name, method in METHODS.items()},
    **{f"data set {name}": dataset.Options for name, dataset in DATASETS.items()},
}


def is_sentence(text: str | None) -> bool:
    """One sentence: a capital letter or a quoted value first, a full stop last and only there."""
    return (
        text is not None
        and re.fullmatch(r"[A-Z`][^\n]*[^.]\.", text) is not None
        and (". " not in text)
    )


@pytest.mark.parametrize("group", CLASSES)
def test_every_setting_has_a_sentence(group: str) -> None:
    fields = CLASSES[group].model_fields
    assert not [name for name, field in fields.items() if not is_sentence(field.description)]


@pytest.mark.parametrize("text", [None, "", "width of a layer.", "Width of a layer", "One. Two."])
def test_what_is_no_sentence_is_found(text: str | None) -> None:
    assert is_sentence("Width of a layer.")
    assert not is_sentence(text)


@pytest.mark.parametrize("group", CLASSES)
def test_every_number_has_a_range(group: str) -> None:
    rows = [row for row in setting_rows() if row.group == group]
    assert not [r.name for r in rows if re.match(r"(integer|number)(,|$)", r.allowed)]


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", METHODS)
def test_the_rows_of_a_run_are_its_configuration(dataset: str, method: str) -> None:
    rows = setting_rows(method, dataset)
    defaults = {row.name: row.default for row in rows}
    assert len(defaults) == len(rows)
    chosen = {"dataset": dataset, "method": method, "tokenizer": None}
    flat = run_config({"dataset": dataset, "method": method}, "test").flat()
    assert {**flat, **chosen} == {**defaults, **chosen}
    # The tokenizer of a pretrained encoder follows its weights.
    assert flat.get("tokenizer") in (None, defaults["weights"])


def test_ranges_and_choices_are_in_words() -> None:
    rows = {row.name: row for row in setting_rows("bbam", "digits")}
    assert rows["labeled_fraction"].allowed == "number in (0, 1), or null"
    assert rows["seed"].allowed == "integer in [0, 2147483647]"
    assert rows["negative_ratio"].allowed == "number >= 0, or null"
    assert rows["device"].allowed == "auto, cpu, cuda"
    assert rows["balance"].allowed == "true, false" and rows["balance"].default_text == "true"
    assert rows["dataset"].allowed.startswith("digits, awa, ")
    assert (rows["epochs"].default, rows["epochs"].general_default) == (13, 40)


def test_a_flag_limits_the_rows_to_a_method_or_a_data_set() -> None:
    def groups(rows: list[SettingRow]) -> set[str]:
        return {row.group for row in rows}

    assert groups(setting_rows("cap")) == {"common", "method cap"}
    assert groups(setting_rows(dataset="awa")) == {"common", "data set awa"}
    assert groups(setting_rows()) == set(CLASSES)
    for wrong in ({"method": "capp"}, {"dataset": "aaw"}):
        with pytest.raises(UsageError, match="did you mean"):
            setting_rows(**wrong)


def test_the_command_prints_rows_as_text_and_as_json() -> None:
    text = CliRunner().invoke(app, ["settings", "--method", "bbam", "--dataset", "digits"]).output
    assert "negative_ratio = 5.0   number >= 0, or null" in text
    assert "epochs = 13   integer >= 1   (common default: 40)" in text
    assert "hardest first; null keeps all." in text
    rows = json.loads(CliRunner().invoke(app, ["settings", "--json"]).output)
    assert [SettingRow(**row) for row in rows] == setting_rows()
    ended = CliRunner().invoke(app, ["settings", "--method", "bban"])
    assert ended.exit_code == 2 and "did you mean 'bbam'?" in ended.stderr


def test_the_page_has_every_setting_in_order() -> None:
    page = settings_markdown()
    assert page == settings_markdown()
    titles = re.findall(r"^##+ (.*)$", page, re.MULTILINE)
    assert titles == ["Common settings", "Methods", *METHODS, "Data sets", *DATASETS]
    for row in setting_rows():
        assert f"`{row.name}`" in page or f"`{row.name}={row.default_text}`" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {5}
