"""A JSON schema of search space files, for completion and checks in an editor.

    python -m bbam_ray.scale.search.space_schema > search_spaces/space.schema.json

Rules that involve several keys (published values in range, conditions that can hold) are checked by
``space_file`` when a study is planned.
"""

from __future__ import annotations

import json
from typing import Any

from bbam_ray.config import Options, TrainingConfig
from bbam_ray.data import DATASETS
from bbam_ray.methods import METHODS
from bbam_ray.scale.search.space_file import OBJECTIVES, RESERVED

_VALUE = {"type": ["boolean", "number", "string"]}
_MODE = {"enum": ["max", "min"]}
_CONDITION = {
    "type": "object",
    "description": "searched only where these other parameters have these values",
    "additionalProperties": _VALUE,
    "minProperties": 1,
}


def _parameter(kind: str, required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, **properties, "when": _CONDITION},
        "required": ["type", *required],
        "additionalProperties": False,
    }


def _settings() -> dict[str, str]:
    """Every setting that a space file may name, of all data sets and methods, with its description."""
    parts: list[type[Options]] = [TrainingConfig]
    parts += [dataset.Options for dataset in DATASETS.values()]
    parts += [method.Options for method in METHODS.values()]
    return {
        name: field.description or ""
        for part in parts
        for name, field in part.model_fields.items()
        if name not in RESERVED
    }


def space_schema() -> dict[str, Any]:
    """The schema as a mapping."""
    number, log = (
        {"type": "number"},
        {"type": "boolean", "description": "draw evenly on a log scale"},
    )
    span = {"low": number, "high": number, "log": log}
    step = {"type": "number", "exclusiveMinimum": 0, "description": "distance between values"}
    whole = {"type": "integer"}
    parameter = {
        "oneOf": [
            _parameter("float", ["low", "high"], {**span, "step": step}),
            _parameter(
                "int",
                ["low", "high"],
                {"low": whole, "high": whole, "log": log, "step": {**whole, "minimum": 1}},
            ),
            _parameter(
                "categorical",
                ["choices"],
                {"choices": {"type": "array", "items": _VALUE, "minItems": 1, "uniqueItems": True}},
            ),
        ]
    }
    settings = _settings()
    metric = {"enum": list(OBJECTIVES)[:-1]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bbam_ray search space",
        "type": "object",
        "properties": {
            "metric": {
                "description": "decided on validation data; a list for several objectives",
                "oneOf": [
                    metric,
                    {"type": "array", "items": {"enum": list(OBJECTIVES)}, "minItems": 1},
                ],
            },
            "mode": {"oneOf": [_MODE, {"type": "array", "items": _MODE, "minItems": 1}]},
            "parameters": {
                "description": "what is searched",
                "type": "object",
                "properties": {
                    name: {"description": text, "$ref": "#/$defs/parameter"}
                    for name, text in settings.items()
                },
                "additionalProperties": False,
                "minProperties": 1,
            },
            "published": {
                "description": "trial 0: a value for every parameter that is active in it",
                "type": "object",
                "properties": dict.fromkeys(settings, _VALUE),
                "additionalProperties": False,
            },
            "start": {
                "description": "trials 1, 2, ...: further configurations with which every search starts; "
                "what one leaves out has its published value",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": dict.fromkeys(settings, _VALUE),
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            },
            "fixed": {
                "description": "settings that are not searched but differ from the defaults",
                "type": "object",
                "properties": {name: {} for name in settings},
                "additionalProperties": False,
            },
        },
        "required": ["parameters", "published"],
        "additionalProperties": False,
        "$defs": {"parameter": parameter},
    }


if __name__ == "__main__":
    print(json.dumps(space_schema(), indent=1))
