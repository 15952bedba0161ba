"""Configuration: frozen, strict, flat for the user.

A run is described by three objects: what all runs share (``TrainingConfig``), the options of its
data set and the options of its method. Users meet one flat namespace (``--set scale=20``, the keys of
a YAML file, the columns ``param_*``); field names are therefore unique over the three.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from bbam_ray.errors import UsageError, nearest

# Of a YAML document, aliases written out; more is a mistake or an attack.
_MAX_NODES, _MAX_DEPTH = 10_000, 50
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def shown(text: object, most: int = 80) -> str:
    """What comes from outside, for a message: on one line, and no more than tells which it is."""
    if isinstance(text, BaseException):
        text = " ".join(str(text).split()) or type(text).__name__
    words = text if isinstance(text, str) else quoted(text, most)
    short = words if len(words) <= most else f"{words[:most]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


class _Brief(reprlib.Repr):
    """``repr`` of a few of the values of a collection, three levels deep."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxlevel, self.maxother, self.maxstring = 3, most, most

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 300 else f"a number of {x.bit_length()} bits"


def quoted(value: object, most: int = 80) -> str:
    """``repr`` of a value from outside, for a message: short, however large or deep the value is."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else f"{value[:most]}...")
    return shown(_Brief(most).repr(value), most)


def similar(name: object, known: Iterable[str]) -> str:
    """``nearest``, without a list of thousands of known names."""
    names = [shown(one) for one in known]
    hint = nearest(shown(name), names)
    return hint if len(hint) < 300 else f"none of the {len(names)} known names is similar"


class Options(BaseModel):
    """Base of all configuration objects: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @classmethod
    def build(cls, values: Mapping[str, Any], source: str) -> Self:
        """Check and build from a mapping; the first defect becomes a UsageError in one sentence.

        Args:
            values: field name to value.
            source: where the values come from, for the message ("--set", a file name).
        """
        for name in values:
            if name not in cls.model_fields:
                raise UsageError(
                    f"{source}: unknown key '{shown(name)}'; {similar(name, cls.model_fields)}"
                )
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            reason = shown(first["msg"].removeprefix("Value error, "), 300)
            if not first["loc"]:
                raise UsageError(f"{source}: {reason}") from None
            name = str(first["loc"][0])
            raise UsageError(
                f"{source}: {name} = {quoted(first['input'])} is not possible: {reason}"
            ) from None


class TrainingConfig(Options):
    """What every run has, whatever its data set and method."""

    dataset: str = Field("digits", description="name of the data set")
    method: str = Field("bbam", description="name of the learning method")
    data_dir: Path | None = Field(
        None, strict=False, description="folder of the data set, if it needs one"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of split, initial weights, order and views")
    labeled_fraction: float | None = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of the known labels that may be used, (0, 1); null = all of them where the "
        "data have unlabelled samples, else 0.05",
    )
    split: Literal["published", "stratified"] = Field(
        "published",
        description="how labelled samples are chosen: the first of a permutation, or so that every label "
        "keeps positives among them where it can",
    )
    validation_fraction: float = Field(
        0.2, ge=0, lt=1, description="share of the labelled samples held out for validation, [0, 1)"
    )
    backbone: str = Field("small-cnn", description="small-cnn, mlp or a torchvision ResNet")
    weights: str = Field("none", description="initial backbone: none, a torchvision name or a path")
    hidden_dim: int = Field(512, ge=1, description="width of the projector's hidden layer")
    feature_dim: int = Field(256, ge=1, description="width D of the features the angles live in")
    epochs: int = Field(40, ge=1, description="epochs in all, warm-up included")
    warmup_epochs: int = Field(
        12, ge=0, description="epochs on labelled samples alone, at the start"
    )
    warmup_passes: int = Field(
        1, ge=1, description="passes over the labelled samples in an epoch without unlabelled ones"
    )
    stop_epoch: int | None = Field(
        None, ge=1, description="end after this epoch; the schedules keep the length of `epochs`"
    )
    patience: int | None = Field(
        None, ge=1, description="end after so many epochs without a better val_map; null = never"
    )
    labeled_batch: int = Field(
        32, ge=1, description="labelled samples in a step, all workers together"
    )
    unlabeled_batch: int = Field(
        96, ge=1, description="unlabelled samples in a step, all workers together"
    )
    evaluation_batch: int = Field(
        512, ge=1, description="samples in a forward pass without gradient"
    )
    warmup_learning_rate: float = Field(1e-4, gt=0, le=1, description="peak of the warm-up phase")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="peak of the main phase")
    backbone_rate: float = Field(
        1.0, gt=0, le=10, description="learning rate of the backbone / that of projector and head"
    )
    weight_decay: float = Field(1e-4, ge=0, le=1, description="of AdamW")
    pct_start: float = Field(0.2, gt=0, lt=1, description="rising part of each one-cycle schedule")
    ema_decay: float = Field(
        0.9997, ge=0, lt=1, description="decay of the averaged weights, per step"
    )
    strong_magnitude: float = Field(
        0.5, ge=0, le=1, description="strength of the strong view's affine and colour changes"
    )
    cutout: float = Field(0.5, ge=0, lt=1, description="side of the erased square / image side")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = GPU if there is one")
    synchronized_batch_norm: bool = Field(
        True, description="batch norm over the samples of all workers; one worker has no other"
    )
    amp: bool = Field(True, description="bfloat16 autocast on a GPU (float16 where it has none)")
    amp_cpu: bool = Field(
        False,
        description="bfloat16 autocast on a CPU: faster where it has avx512_bf16 or amx_bf16, else slower",
    )

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs} is more than epochs = {self.epochs}: "
                "raise --epochs or lower --warmup-epochs"
            )
        return self


class MethodOptions(Options):
    """Base of the options of one method."""


class DatasetOptions(Options):
    """Base of the options of one data set."""


class RunConfig:
    """A complete, checked run: ``training``, ``data`` and ``method`` options together."""

    def __init__(
        self, training: TrainingConfig, data: DatasetOptions, method: MethodOptions
    ) -> None:
        self.training, self.data, self.method = training, data, method

    def flat(self) -> dict[str, Any]:
        """All settings under their user-facing names, as plain YAML/JSON values."""
        values: dict[str, Any] = {}
        for part in (self.training, self.data, self.method):
            values |= part.model_dump(mode="json")
        return values


WHOLE_MARK = "The last line is three dots; without it this file has been cut short."


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-4`` as a string; here it is the number that everybody means.

    Refused are a key that stands twice, and aliases that make much of little ("billion laughs").
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, int] = {}  # nodes below each one, by its identity
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
                twice = next(key for place, key in enumerate(keys) if key in keys[:place])
                raise ComposerError(None, None, f"key '{shown(twice[1])}' stands twice", mark)
        below = node.value if isinstance(node, yaml.CollectionNode) else []
        nodes = [
            part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,))
        ]
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in nodes)
        if size > _MAX_NODES:
            raise ComposerError(None, None, f"more than {_MAX_NODES} values", mark)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and not _is_text(value):
            raise ConstructorError(None, None, "half a character (a surrogate)", node.start_mark)
        return value


def _is_text(value: str) -> bool:
    """Whether it can be written: an escaped half of a character cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\.\d[\d_]*(?:[eE][-+]?\d+)?"
        r"|\d[\d_]*[eE][-+]?\d+|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


# A date is text here: no setting is one, and an impossible date would end in a ValueError.
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _Loader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML text safely; a syntax error becomes a UsageError that names place and reason."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        problem = shown(getattr(error, "problem", None) or "cannot be read", 200)
        raise UsageError(f"{source}{place}: not valid YAML ({problem})") from None
    except RecursionError:
        raise UsageError(f"{source}: not valid YAML (nested too deeply)") from None
    except (ValueError, OverflowError) as error:  # what begins like a number and is none
        raise UsageError(
            f"{source}: a value cannot be read ({shown(error, 200)}); put it in quotes"
        ) from None


def parse_json(text: str) -> Any:
    """Read JSON; whatever is wrong with it is a ValueError."""
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # fails for half a character
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a missing file or another content is a UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}; give the path of a YAML file") from None
    if WHOLE_MARK in text and not text.rstrip().endswith("\n..."):
        raise UsageError(f"{path}: has been cut short (no '...' at its end); copy it again")
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{path}: expected lines of the form 'key: value'")
    return values


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Values of repeated ``--set key=value`` options; the value is read as YAML."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            raise UsageError(
                f"--set {shown(assignment)}: expected key=value, for example --set scale=20"
            )
        values[name.strip()] = parse_yaml(text, f"--set {shown(name)}")
    return values
