"""Configuration: frozen, strict, flat for the user.

A run is described by three objects: what all runs share (``TrainingConfig``), the options of its
data set and the options of its method. Users meet one flat namespace (``--set scale=20``, the keys of
a YAML file, the columns ``param_*``); field names are therefore unique over the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bbam_ray.errors import UsageError, quoted, shown, similar


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
