"""Reading a search space file; all of it is checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bbam_ray.core.metric_names import METRICS
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import UsageError, brief, nearest, quoted, similar
from bbam_ray.methods import known_settings, run_config, setting_hint
from bbam_ray.scale.search.space import Parameter, Space

KEYS = ("metric", "mode", "parameters", "published", "start", "fixed")
#: Objectives of a search, with the direction in which each is better.
OBJECTIVES = {
    **{f"val_{name}": "max" if m.higher_is_better else "min" for name, m in METRICS.items()},
    "seconds_per_epoch": "min",
}
RESERVED = ("dataset", "method", "data_dir", "seed", "stop_epoch", "labeled_fraction")


def read_space(path: Path, dataset: str, method: str, overrides: Mapping[str, Any]) -> Space:
    """Read a space file and check all of it against the settings of a data set and a method.

    Args:
        path: the YAML file.
        overrides: settings given on the command line; one that names a searched parameter fixes it.

    Raises:
        UsageError: names file, key, value and the nearest valid name.
    """
    content = read_yaml_mapping(path)
    for key in content:
        if key not in KEYS:
            raise UsageError(f"{path}: unknown key '{brief(key)}'; {similar(key, KEYS)}")
    known = known_settings(dataset, method)
    start = content.get("start", [])
    if not isinstance(start, list):
        raise UsageError(f"{path}: start must be a list of configurations")
    sections = {key: content.get(key, {}) for key in ("parameters", "published", "fixed")}
    sections |= {f"start[{number}]": section for number, section in enumerate(start)}
    for key, section in sections.items():
        if not isinstance(section, dict):
            raise UsageError(f"{path}: {key} must be a mapping of names")
        for name in section:
            if name in RESERVED:
                raise UsageError(
                    f"{path}: {key}.{name}: set it on the command line, not in a space file"
                )
            if name not in known:
                raise UsageError(
                    f"{path}: {key}.{brief(name)}: unknown setting for data set '{dataset}' and "
                    f"method '{method}'; {setting_hint(brief(name), known)}"
                )
    if "published" not in content:
        raise UsageError(f"{path}: published is missing: trial 0 needs a value for each parameter")
    if not content.get("parameters"):
        raise UsageError(f"{path}: parameters: nothing to search; name at least one setting")
    for name in content["parameters"]:
        if name in content.get("fixed", {}):
            raise UsageError(f"{path}: {name} is both searched and fixed; keep one of them")
    searched = {
        name: Parameter.build(value, f"{path}: parameters.{name}")
        if isinstance(value, dict)
        else _not_a_mapping(path, name)
        for name, value in content["parameters"].items()
    }
    space = Space.build({**content, "parameters": _in_order(path, searched)}, str(path))
    for index, (name, mode) in enumerate(space.objectives):
        # The first objective is a metric: it chooses the final configuration.
        known_names = list(OBJECTIVES) if index else list(OBJECTIVES)[:-1]
        if name not in known_names:
            raise UsageError(
                f"{path}: metric: unknown metric '{brief(name)}'; {nearest(brief(name), known_names)}"
            )
        if mode != OBJECTIVES[name]:
            raise UsageError(
                f"{path}: mode: '{name}' has mode {mode}, but "
                f"{'higher' if mode == 'min' else 'lower'} values are better; use {OBJECTIVES[name]}"
            )
    _check_configuration(path, space, "published", space.published)
    space = _with_complete_start(path, space)
    space = _without(space, overrides)
    _check_settings(path, space, {"dataset": dataset, "method": method, **overrides})
    return space


def _not_a_mapping(path: Path, name: str) -> Parameter:
    raise UsageError(f"{path}: parameters.{name}: expected {{type: ..., low: ..., high: ...}}")


def _in_order(path: Path, parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Order parameters so that each comes after those that its condition names."""
    for name, parameter in parameters.items():
        for other, value in parameter.when.items():
            if other not in parameters:
                raise UsageError(
                    f"{path}: parameters.{name}.when: '{brief(other)}' is not searched; "
                    f"{nearest(brief(other), parameters)}"
                )
            if not parameters[other].holds(value):
                raise UsageError(
                    f"{path}: parameters.{name}.when: {other} cannot be {quoted(value)}; correct the value"
                )
    ordered: dict[str, Parameter] = {}
    while len(ordered) < len(parameters):
        ready = [
            n for n, p in parameters.items() if n not in ordered and set(p.when) <= set(ordered)
        ]
        if not ready:
            cycle = sorted(set(parameters) - set(ordered))
            raise UsageError(
                f"{path}: parameters {', '.join(cycle)}: their 'when' conditions "
                "form a cycle; remove one"
            )
        ordered |= {name: parameters[name] for name in ready}
    return ordered


def _check_configuration(path: Path, space: Space, key: str, values: Mapping[str, Any]) -> None:
    """A configuration must have a value in range for each parameter that is active in it."""
    for name, value in values.items():
        if name not in space.parameters:
            raise UsageError(
                f"{path}: {key}.{name}: is not searched; {nearest(name, space.parameters)}"
            )
        if not space.parameters[name].holds(value):
            raise UsageError(
                f"{path}: {key}.{name} = {quoted(value)} is outside its range; change "
                "the value or the range"
            )
    for name in space.parameters:
        active = space.active(name, values)
        if active != (name in values):
            trial = "trial 0 needs it" if key == "published" else "published has no value for it"
            missing = f"is missing: {trial}"
            unused = "is set, but its 'when' condition does not hold; remove it"
            raise UsageError(f"{path}: {key}.{name} {missing if active else unused}")


def _with_complete_start(path: Path, space: Space) -> Space:
    """The space with the values of ``published`` for what a configuration of ``start`` leaves out."""
    start = []
    for number, changes in enumerate(space.start):
        values = dict(changes)
        for name in space.parameters:  # each after those that its condition names
            if name not in values and name in space.published and space.active(name, values):
                values[name] = space.published[name]
        _check_configuration(path, space, f"start[{number}]", values)
        if values == space.published or values in start:
            raise UsageError(
                f"{path}: start[{number}] is a configuration that is listed before; remove it"
            )
        start.append(values)
    return space.model_copy(update={"start": tuple(start)})


def _check_settings(path: Path, space: Space, settings: Mapping[str, Any]) -> None:
    """Check the fixed and published values, and both ends of every range together with them."""
    base = {**space.fixed, **settings}
    run_config(base, f"{path}: fixed")
    run_config({**base, **space.published}, f"{path}: published")
    for number, values in enumerate(space.start):
        run_config({**base, **values}, f"{path}: start[{number}]")
    for name, parameter in space.parameters.items():
        for value in parameter.extremes():
            values = {**base, **space.published, name: value}
            run_config(values, f"{path}: parameters.{name}")


def _without(space: Space, overrides: Mapping[str, Any]) -> Space:
    """The space with the settings of the command line fixed, not searched."""
    searched: dict[str, Parameter] = {}
    dropped: set[str] = set()
    for name, parameter in space.parameters.items():
        if name in overrides:
            continue
        when = parameter.when
        if any(
            other in dropped or overrides.get(other, value) != value
            for other, value in when.items()
        ):
            dropped.add(name)
            continue
        rest = {other: value for other, value in when.items() if other not in overrides}
        searched[name] = parameter.model_copy(update={"when": rest})

    def reduced(configuration: Mapping[str, Any]) -> dict[str, Any]:
        values = {name: value for name, value in configuration.items() if name in searched}
        for name, parameter in searched.items():
            if name not in values and all(values.get(o) == v for o, v in parameter.when.items()):
                values[name] = parameter.extremes()[0]
        return values

    published, start = reduced(space.published), []
    for values in map(reduced, space.start):
        if values != published and values not in start:
            start.append(values)
    fixed = {**space.fixed, **{k: v for k, v in overrides.items() if k not in RESERVED}}
    if not searched:
        raise UsageError("--set fixes every parameter of the space; leave at least one to search")
    changed = {
        "parameters": searched,
        "published": published,
        "start": tuple(start),
        "fixed": fixed,
    }
    return space.model_copy(update=changed)
