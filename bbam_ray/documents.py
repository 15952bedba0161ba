"""Read YAML and JSON safely (plain values of limited size, clear errors), and write standard JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from bbam_ray.errors import UsageError, brief
from bbam_ray.files import write_text

# Limits of a YAML document with its aliases expanded; more is a mistake or an attack.
_MAX_NODES, _MAX_DEPTH = 10_000, 50
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

#: Comment in files whose last line is the YAML end mark "...", so that truncation is detected.
WHOLE_MARK = "The last line is three dots; without it this file has been cut short."


class _Loader(yaml.SafeLoader):
    """A safe loader that reads ``1e-4`` as a number (YAML 1.1 says string) and dates as text.

    Rejects duplicate keys, and exponential alias expansion ("billion laughs").
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, int] = {}  # number of nodes in each subtree, by the id of its root
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ComposerError(None, None, "nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None or (is_alias and id(node) not in self._sizes):
            raise ComposerError(None, None, "a value contains itself", mark)
        if isinstance(node, yaml.MappingNode):
            keys = [(k.tag, k.value) for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                duplicate = next(key for index, key in enumerate(keys) if key in keys[:index])
                raise ComposerError(None, None, f"duplicate key '{brief(duplicate[1])}'", mark)
        entries = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [
            child
            for entry in entries
            for child in (entry if isinstance(entry, tuple) else (entry,))
        ]
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(child)] for child in children)
        if size > _MAX_NODES:
            raise ComposerError(None, None, f"more than {_MAX_NODES} values", mark)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and not _is_text(value):
            raise ConstructorError(
                None, None, "an incomplete character (a surrogate)", node.start_mark
            )
        return value


def _is_text(value: str) -> bool:
    """Whether a string can be encoded: a lone surrogate cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\.\d[\d_]*(?:[eE][-+]?\d+)?"
        r"|\d[\d_]*[eE][-+]?\d+|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


# Dates are read as text: no setting is a date, and an invalid one would raise a ValueError.
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _Loader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML safely.

    Args:
        text: to read.
        source: file or flag, for messages.

    Raises:
        UsageError: not valid YAML; names line and reason.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = brief(getattr(error, "problem", None) or "cannot be read", 200)
        raise UsageError(f"{source}{line}: not valid YAML ({problem})") from None
    except RecursionError:
        raise UsageError(f"{source}: not valid YAML (nested too deeply)") from None
    except (ValueError, OverflowError) as error:  # starts like a number, but is not one
        raise UsageError(
            f"{source}: a value cannot be read ({brief(error, 200)}); put it in quotes"
        ) from None


def parse_json(text: str, *, unique: bool = False) -> Any:
    """Read JSON; every error is a ValueError.

    Args:
        text: to read.
        unique: whether a name that occurs twice in an object is an error, rather than the last one used.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates if unique else None)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # fails for a lone surrogate
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"duplicate name '{brief(duplicate)}'")
    return values


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write standard JSON atomically; infinite and NaN numbers become texts: "inf", "-inf", "nan"."""
    values = standard_values(content)
    write_text(path, json.dumps(values, indent=2, allow_nan=False, default=str) + "\n")


def standard_values(value: Any) -> Any:
    """A copy that standard JSON can hold, equal to what reading the written JSON gives."""
    if isinstance(value, Mapping):
        return {str(key): standard_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [standard_values(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file whose content is a mapping with text keys.

    Raises:
        UsageError: no such file, truncated, or other content.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}; give the path of a YAML file") from None
    if WHOLE_MARK in text and not text.rstrip().endswith("\n..."):
        raise UsageError(f"{path}: is truncated (no '...' at its end); copy it again")
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{path}: expected lines of the form 'key: value'")
    return values


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Parse repeated ``--set key=value`` options; each value is read as YAML."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            raise UsageError(
                f"--set {brief(assignment)}: expected key=value, for example --set scale=20"
            )
        # Blanks are a value: a separator may be one.
        values[name.strip()] = text if text.isspace() else parse_yaml(text, f"--set {brief(name)}")
    return values
