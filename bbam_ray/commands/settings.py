"""All settings of runs, read from the fields of the configuration classes, as rows and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from bbam_ray.config import Options, TrainingConfig
from bbam_ray.data import DATASETS
from bbam_ray.methods import METHODS, known_settings
from bbam_ray.models import BACKBONES
from bbam_ray.pretrained_images import PREFIX

COMMON = "common"
_CHOICES: dict[str, Iterable[str]] = {
    "dataset": DATASETS,
    "method": METHODS,
    "backbone": [*BACKBONES, f"{PREFIX}NAME"],
}
_KINDS: dict[Any, str] = {int: "integer", float: "number", str: "text", Path: "path"}


@dataclass(frozen=True)
class SettingRow:
    """One setting.

    Args:
        group: "common", "method NAME" or "data set NAME".
        name: as in ``--set NAME=VALUE``, in YAML files and in the columns ``param_NAME``.
        default: a plain YAML value; the data set's own default where it has one.
        general_default: the default without the data set's own.
        allowed: range or choices, for example "integer >= 1" or "number in (0, 1), or null".
        description: one sentence.
    """

    group: str
    name: str
    default: Any
    general_default: Any
    allowed: str
    description: str

    @property
    def default_text(self) -> str:
        """The default as it is written in YAML."""
        return _yaml(self.default)

    @property
    def general_text(self) -> str:
        """The default without the data set's own, as it is written in YAML."""
        return _yaml(self.general_default)


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def setting_rows(method: str | None = None, dataset: str | None = None) -> list[SettingRow]:
    """The common settings, then those of each method, then those of each data set.

    A data set's own defaults of common settings are rows of its group, too. With ``dataset`` the
    defaults of the common settings are that data set's; ``dataset`` and ``method`` are as given.

    Args:
        method: list the settings of this method only, and of no data set unless one is given.
        dataset: list the settings of this data set only, and of no method unless one is given.

    Raises:
        UsageError: unknown method or data set.
    """
    known_settings(dataset or "digits", method or "bbam")
    everything = method is None and dataset is None
    methods = list(METHODS) if everything else [method] if method else []
    datasets = list(DATASETS) if everything else [dataset] if dataset else []
    own_defaults = {**DATASETS[dataset].defaults, "dataset": dataset} if dataset else {}
    if method:
        own_defaults |= {"method": method, **METHODS[method].fixed_settings}
    rows = _rows(COMMON, TrainingConfig, own_defaults)
    for name in methods:
        rows += _rows(f"method {name}", METHODS[name].Options, {})
    for name in datasets:
        group, defaults = f"data set {name}", DATASETS[name].defaults
        rows += _rows(group, DATASETS[name].Options, defaults)
        if everything:
            common = _rows(group, TrainingConfig, defaults)
            rows += [row for row in common if row.default != row.general_default]
    return rows


def settings_markdown() -> str:
    """The page ``docs/settings.md``: common settings, then each method, then each data set."""
    groups: dict[str, list[SettingRow]] = {}
    for row in setting_rows():
        groups.setdefault(row.group, []).append(row)
    lines = [
        "# Settings",
        "",
        "A setting has the same name in `--set NAME=VALUE`, in YAML files (`--config`, search spaces)",
        "and in the columns `param_NAME` of the results. The page is generated from the classes;",
        "`bbam-ray settings --method METHOD --dataset DATASET` prints the settings of one run.",
        "",
        "## Common settings",
        "",
        *_table(groups.pop(COMMON)),
    ]
    for title, kind in (("Methods", "method"), ("Data sets", "data set")):
        lines += ["", f"## {title}"]
        for group in [group for group in groups if group.startswith(f"{kind} ")]:
            lines += ["", f"### {group.removeprefix(f'{kind} ')}", *_section(groups[group])]
    return "\n".join(lines) + "\n"


def _section(rows: list[SettingRow]) -> list[str]:
    """The own settings of a method or data set as a table, and its defaults of common settings."""
    own = [row for row in rows if row.name not in TrainingConfig.model_fields]
    defaults = [row for row in rows if row.name in TrainingConfig.model_fields]
    lines = ["", *_table(own)] if own else []
    if defaults:
        values = [f"`{row.name}={row.default_text}`" for row in defaults]
        lines += ["", f"Defaults of common settings: {', '.join(values)}."]
    return lines


def _table(rows: Iterable[SettingRow]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| Setting | Default | Range or choices | Meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"`{row.name}`", f"`{row.default_text}`", row.allowed, row.description)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _rows(group: str, part: type[Options], own_defaults: Mapping[str, Any]) -> list[SettingRow]:
    return [
        SettingRow(
            group=group,
            name=name,
            default=own_defaults.get(name, field.default),
            general_default=field.default,
            allowed=_allowed(name, field),
            description=field.description or "",
        )
        for name, field in part.model_fields.items()
    ]


def _allowed(name: str, field: FieldInfo) -> str:
    """Range or choices of a field in words."""
    kinds = get_args(field.annotation)
    if get_origin(field.annotation) is Literal:
        return ", ".join(map(str, kinds))
    optional = NoneType in kinds
    kind = next(k for k in kinds if k is not NoneType) if optional else field.annotation
    if name in _CHOICES:
        text = ", ".join(_CHOICES[name])
    elif kind is bool:
        text = "true, false"
    else:
        text = f"{_KINDS[kind]} {_interval(field, whole=kind is int)}".strip()
    return f"{text}, or null" if optional else text


def _interval(field: FieldInfo, *, whole: bool) -> str:
    """The bounds of a number, for example ">= 1" or "in (0, 1]"; "" where there are none."""
    bounds = {
        key: value
        for constraint in field.metadata
        for key in ("ge", "gt", "le", "lt")
        if (value := getattr(constraint, key, None)) is not None
    }
    if whole and "lt" in bounds:
        bounds["le"] = bounds.pop("lt") - 1
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is None and high is None:
        return ""
    if high is None:
        return f"{'>=' if 'ge' in bounds else '>'} {low}"
    if low is None:
        return f"{'<=' if 'le' in bounds else '<'} {high}"
    return f"in {'[' if 'ge' in bounds else '('}{low}, {high}{']' if 'le' in bounds else ')'}"
