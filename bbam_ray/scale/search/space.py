"""A search space: parameters with conditions, compiled to Optuna define-by-run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from bbam_ray.config import Options
from bbam_ray.errors import brief

if TYPE_CHECKING:
    import optuna

Mode = Literal["max", "min"]
_CHOICE_KINDS = {bool: "bool", int: "int", float: "float", str: "str"}


class Parameter(Options):
    """One searched setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, strict=True)

    type: Literal["float", "int", "categorical"] = Field(description="kind of range")
    low: float | None = Field(None, description="lowest value (float, int)")
    high: float | None = Field(None, description="highest value (float, int)")
    log: bool = Field(False, description="draw evenly on a logarithmic scale")
    step: float | None = Field(None, gt=0, description="distance between values")
    choices: tuple[bool | int | float | str, ...] | None = Field(
        None, strict=False, description="the values of a categorical parameter"
    )
    when: dict[str, bool | int | float | str] = Field(
        default_factory=dict,
        description="searched only where these other parameters have these values",
    )

    @model_validator(mode="after")
    def _range_is_possible(self) -> Parameter:
        if self.type == "categorical":
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError(
                    "a categorical parameter has 'choices' (at least one) and no range"
                )
            if self.log or self.step is not None:
                raise ValueError("'log' and 'step' are for float and int")
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise ValueError(f"choices = {list(self.choices)} contain a duplicate value")
            self.kind  # noqa: B018 - raises for mixed kinds
            return self
        if self.low is None or self.high is None or self.choices is not None:
            raise ValueError(
                f"a parameter of type {self.type} has 'low' and 'high' and no 'choices'"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("low and high must be finite")
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low > 0, not low = {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        step = 1.0 if self.step is None else self.step
        if not math.isfinite(step):
            raise ValueError(f"step must be finite, not {step:g}")
        whole = all(float(number).is_integer() for number in (self.low, self.high, step))
        if self.type == "int" and not whole:
            raise ValueError("low, high and step of an int parameter must be whole numbers")
        if not self._on_a_step(self.high):
            raise ValueError(f"high = {self.high:g} is not low + a multiple of step = {step:g}")
        return self

    def _on_a_step(self, value: float) -> bool:
        """Whether a value is low + a multiple of step, up to rounding."""
        if self.step is None or self.low is None:
            return True
        steps = (value - self.low) / self.step
        return steps < 1e9 and abs(steps - round(steps)) < 1e-6

    @property
    def kind(self) -> str:
        """Kind of the column in Parquet: float, int, bool or str."""
        if self.type != "categorical":
            return self.type
        kinds = {_CHOICE_KINDS[type(choice)] for choice in self.choices or ()}
        if kinds == {"int", "float"}:
            return "float"
        if len(kinds) != 1:
            raise ValueError(f"choices = {list(self.choices or ())} mix kinds of values")
        return kinds.pop()

    def holds(self, value: Any) -> bool:
        """Whether a value is in the range."""
        if self.choices is not None:
            return any(
                value == c and isinstance(value, bool) == isinstance(c, bool) for c in self.choices
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        assert self.low is not None and self.high is not None
        whole = self.type != "int" or isinstance(value, int) or value.is_integer()
        return whole and self.low <= value <= self.high and self._on_a_step(value)

    def extremes(self) -> tuple[bool | int | float | str, ...]:
        """The values that bound the range (all choices of a categorical parameter)."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        return (int(self.low), int(self.high)) if self.type == "int" else (self.low, self.high)

    def suggest(self, name: str, trial: optuna.Trial) -> Any:
        """Draw a value from Optuna."""
        if self.choices is not None:
            return trial.suggest_categorical(name, list(self.choices))
        assert self.low is not None and self.high is not None
        if self.type == "int":
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(name, low, high, step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The range as an Optuna distribution."""
        from optuna import distributions as kinds

        if self.choices is not None:
            return kinds.CategoricalDistribution(list(self.choices))
        assert self.low is not None and self.high is not None
        if self.type == "int":
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return kinds.IntDistribution(low, high, log=self.log, step=step)
        return kinds.FloatDistribution(self.low, self.high, log=self.log, step=self.step)


class Space(Options):
    """A checked search space.

    Args:
        metric: ``val_<metric>``, measured on validation data; a list for several objectives, in which
            seconds_per_epoch may follow the first one.
        mode: max or min; a list of the same length as ``metric``.
        also: the objectives after the first one, with their modes.
        parameters: by name; a parameter comes after those that its condition names.
        published: trial 0, a value for every parameter that is active in it.
        start: trials 1, 2, ...: further configurations with which every search starts, complete as
            ``published`` is.
        fixed: settings that differ from the defaults and are not searched.
    """

    # A choice may be infinite, such as negative_ratio; ranges and choices are checked with the file.
    model_config = ConfigDict(allow_inf_nan=True)

    metric: str = "val_map"
    mode: Mode = "max"
    also: tuple[tuple[str, Mode], ...] = Field((), strict=False)
    parameters: dict[str, Parameter]
    published: dict[str, bool | int | float | str]
    start: tuple[dict[str, bool | int | float | str], ...] = Field((), strict=False)
    fixed: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _several_objectives(cls, values: Any) -> Any:
        """Split lists of metrics and modes into the first objective and the others."""
        if not isinstance(values, dict):
            return values
        metric, mode = values.get("metric", "val_map"), values.get("mode", "max")
        if not isinstance(metric, list):
            return values
        if not isinstance(mode, list) or len(mode) != len(metric) or not metric:
            raise ValueError(
                f"metric names {len(metric)} objectives, so mode must be a list of {len(metric)} values "
                "(max or min)"
            )
        if len(set(map(brief, metric))) < len(metric):
            raise ValueError("metric contains a duplicate objective")
        rest = tuple(zip(metric[1:], mode[1:], strict=True))
        return {**values, "metric": metric[0], "mode": mode[0], "also": rest}

    @property
    def objectives(self) -> tuple[tuple[str, Mode], ...]:
        """All objectives with their modes, the first one first."""
        return ((self.metric, self.mode), *self.also)

    @property
    def first(self) -> tuple[dict[str, bool | int | float | str], ...]:
        """The configurations that are not drawn: trial 0, 1, ..."""
        return (self.published, *self.start)

    def active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether the conditions of a parameter hold for the values of the parameters before it."""
        conditions = self.parameters[name].when
        return all(
            other in values and values[other] == value for other, value in conditions.items()
        )

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw a configuration, define-by-run: inactive parameters are left out."""
        values: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if self.active(name, values):
                values[name] = parameter.suggest(name, trial)
        return values

    @property
    def kinds(self) -> dict[str, str]:
        """Column kinds for ``results.schemas``."""
        return {name: parameter.kind for name, parameter in self.parameters.items()}
