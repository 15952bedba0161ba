"""Configuration of runs: immutable, strictly validated, and one flat set of names for the user.

Three objects describe a run: the settings of every run (``TrainingConfig``), the options of its data set
and the options of its method. Users see one flat namespace (``--set scale=20``, the keys of a YAML file,
the columns ``param_*``), so field names are unique over the three. ``bbam-ray settings`` lists all fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bbam_ray.errors import UsageError, brief, quoted, similar


class Options(BaseModel):
    """Base of all configuration objects: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @classmethod
    def build(cls, values: Mapping[str, Any], source: str) -> Self:
        """Validate and build from a mapping.

        Args:
            values: field name to value.
            source: origin of the values, for error messages ("--set", a file name).

        Raises:
            UsageError: the first invalid value, in one sentence.
        """
        for name in values:
            if name not in cls.model_fields:
                raise UsageError(
                    f"{source}: unknown key '{brief(name)}'; {similar(name, cls.model_fields)}"
                )
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            reason = brief(first["msg"].removeprefix("Value error, "), 300)
            if not first["loc"]:
                raise UsageError(f"{source}: {reason}") from None
            name = str(first["loc"][0])
            raise UsageError(
                f"{source}: {name} = {quoted(first['input'])} is invalid: {reason}"
            ) from None


class TrainingConfig(Options):
    """Settings of every run, for all data sets and methods."""

    dataset: str = Field("digits", description="Name of the data set.")
    method: str = Field("bbam", description="Name of the learning method.")
    data_dir: Path | None = Field(
        None, strict=False, description="Folder or file of the data set; `digits` needs none."
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="Seed of the split, the initial weights, the order of samples and the augmentation.",
    )
    labeled_fraction: float | None = Field(
        0.05,
        gt=0,
        lt=1,
        description="Share of the known labels that training may use; null uses all of them if the data "
        "set has unlabelled samples, else 0.05.",
    )
    split: Literal["published", "stratified"] = Field(
        "published",
        description="How labelled samples are chosen: `published` takes the first of a permutation, "
        "`stratified` keeps positives of every label where possible.",
    )
    validation_fraction: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the labelled samples that is held out for validation, unless the data have "
        "a validation part.",
    )
    split_seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="Seed of the split alone; null uses `seed`.",
    )
    folds: int = Field(
        1,
        ge=1,
        le=100,
        description="Number of stratified folds of the labelled samples, one of which is held out for "
        "validation; 1 holds out `validation_fraction` instead; `tune` sets it and trains all folds.",
    )
    fold: int = Field(0, ge=0, description="Fold that is held out, from 0, if `folds` is above 1.")
    reshuffle: bool = Field(
        False,
        description="Draw other validation samples from the same labelled ones for every configuration of "
        "a search; for `folds` 1.",
    )
    backbone: str = Field(
        "small-cnn",
        description="Network that extracts features: `small-cnn`, a ResNet or `timm:NAME` for images, "
        "`mlp` or `identity` (no layers) for feature vectors, `tiny-text` or `transformer` for texts.",
    )
    weights: str = Field(
        "none",
        description="Initial weights of the backbone: `none`, a name of torchvision or of the hub, or a "
        "path; `DEFAULT` are those that timm names for `timm:NAME`.",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of residual branches that a backbone `timm:NAME` leaves out in training "
        "(stochastic depth), rising with depth.",
    )
    projector: Literal["mlp", "linear", "none"] = Field(
        "mlp",
        description="Layers between backbone and head: `mlp` has a hidden layer, `linear` is one layer, "
        "`none` measures angles between the backbone's own features.",
    )
    head_init: Literal["random", "logistic"] = Field(
        "random",
        description="Initial weights of the head: `logistic` takes those of a logistic regression on the "
        "labelled samples' initial features.",
    )
    hidden_dim: int = Field(
        512, ge=1, description="Width of the hidden layer of projector `mlp`; the others have none."
    )
    feature_dim: int = Field(
        256,
        ge=1,
        description="Width D of the features between which angles are measured; with projector `none` "
        "that of the backbone.",
    )
    epochs: int = Field(40, ge=1, description="Number of epochs, warm-up included.")
    warmup_epochs: int = Field(
        12, ge=0, description="Number of epochs at the start that use labelled samples only."
    )
    warmup_passes: int = Field(
        1,
        ge=1,
        description="Passes over the labelled samples in each epoch that uses no unlabelled samples.",
    )
    stop_epoch: int | None = Field(
        None,
        ge=1,
        description="Stop after this epoch, with the learning-rate schedule of a run of `epochs`; null "
        "never stops early.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this many epochs without a better val_map; null never stops early.",
    )
    keep: Literal["phase", "last", "best"] = Field(
        "phase",
        description="Which weights are kept: `phase` those of the last epoch, or those of the end of the "
        "warm-up if the main phase has lowered val_map; `last` those of the last epoch, as published; "
        "`best` those of the epoch with the highest val_map, also used with `patience`.",
    )
    labeled_batch: int = Field(32, ge=1, description="Labelled samples per step, over all workers.")
    unlabeled_batch: int = Field(
        96, ge=1, description="Unlabelled samples per step, over all workers."
    )
    batch_composition: Literal["fixed", "fraction"] = Field(
        "fixed",
        description="`fixed` uses `labeled_batch` and `unlabeled_batch` as they are, `fraction` divides "
        "their sum as published for a `labeled_fraction` of 0.05, 0.1, 0.15 or 0.2.",
    )
    warmup_batch: int | None = Field(
        None,
        ge=1,
        description="Labelled samples per step in each epoch that uses no unlabelled samples; null uses "
        "`labeled_batch`.",
    )
    shuffle: bool = Field(
        True,
        description="Draw a new order of the samples for every epoch; false keeps one order, drawn from "
        "`seed`, and with it the same batches in all epochs.",
    )
    warmup_views: Literal["strong", "both"] = Field(
        "strong",
        description="Views in the forward passes of epochs without unlabelled samples: `strong`, or "
        "`both`, so that batch norm sees weak views too; the loss is that of the strong view.",
    )
    evaluation_batch: int = Field(
        512, ge=1, description="Samples per forward pass without gradients."
    )
    warmup_learning_rate: float = Field(
        1e-4, gt=0, le=1, description="Peak learning rate of the warm-up phase."
    )
    learning_rate: float = Field(
        1e-4, gt=0, le=1, description="Peak learning rate of the main phase."
    )
    backbone_rate: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Learning rate of the backbone relative to that of projector and head; 0 freezes the "
        "backbone, running statistics included.",
    )
    batch_norm: Literal["batch", "pretrained"] = Field(
        "batch",
        description="Statistics of the backbone's batch normalisation in training: `batch` are those of "
        "the batch, `pretrained` those of the initial `weights`, which then stay as they are.",
    )
    cache_features: bool = Field(
        False,
        description="With `backbone_rate` 0, compute the features of all images once and train on them; "
        "views then change features, not images.",
    )
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Weight decay of AdamW.")
    pct_start: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of each phase in which the one-cycle learning rate rises.",
    )
    cycle_epochs: int | None = Field(
        None,
        ge=1,
        description="Length in epochs of the learning-rate cycle of the main phase, which ends earlier "
        "where that phase is shorter; null uses the length of the phase.",
    )
    cycle_momentum: bool = Field(
        False,
        description="Lower AdamW's beta1 from 0.95 to 0.85 while the learning rate rises, and raise it "
        "again while the rate falls; false keeps 0.9.",
    )
    ema_decay: float = Field(
        0.9997,
        ge=0,
        lt=1,
        description="Decay per step of the exponential moving average of the weights.",
    )
    ema_warmup: bool = Field(
        True,
        description="Limit the decay of the average to (1 + t) / (10 + t) in its step t, so that a short "
        "run does not keep its random start; false uses `ema_decay` in every step.",
    )
    ema_restart: Literal["none", "trained", "averaged"] = Field(
        "none",
        description="Weights from which the average starts again at the start of the main phase: the "
        "`trained` ones, or the `averaged` ones, with which training then continues too; `none` "
        "continues both.",
    )
    strong_magnitude: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Strength of the strong view: affine and color changes of images, noise and dropout "
        "of features, token dropout of texts.",
    )
    cutout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Side of the square that the strong view erases, relative to the image side; for "
        "texts, the share of left-out tokens is its square.",
    )
    warmup_cutout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="`cutout` in epochs that use no unlabelled samples; null is the same as `cutout`, 0 "
        "is as published for images.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device for training; `auto` uses a GPU if there is one."
    )
    synchronized_batch_norm: bool = Field(
        True,
        description="Compute batch norm over the samples of all workers instead of each worker's own.",
    )
    amp: bool = Field(
        True,
        description="Use bfloat16 autocast on a GPU, or float16 where the GPU has no bfloat16.",
    )
    amp_dtype: Literal["auto", "float16"] = Field(
        "auto",
        description="Number format of autocast on a GPU: `auto` as `amp` says, or `float16` with a scale "
        "of the loss that starts at its initial value in every epoch.",
    )
    amp_cpu: bool = Field(
        False,
        description="Use bfloat16 autocast on a CPU, which is faster only with avx512_bf16 or amx_bf16.",
    )

    compile: Literal["auto", "true", "false"] = Field(
        "auto",
        description="Compile the network with torch.compile; `auto` does so on a GPU where the remaining "
        "steps are expected to save more time than it takes, and runs small networks as CUDA graphs.",
    )

    def cutout_of_phase(self, *, main_phase: bool) -> float:
        """The ``cutout`` of the main phase, or of epochs without unlabelled samples."""
        return self.cutout if main_phase or self.warmup_cutout is None else self.warmup_cutout

    @property
    def keep_rule(self) -> str:
        """The rule for the kept weights: ``keep``, or "best" with ``patience``."""
        return self.keep if self.patience is None else "best"

    @field_validator("compile", mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        """YAML reads true and false as booleans."""
        return str(value).lower() if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(
                f"fold = {self.fold} does not exist with folds = {self.folds}: folds count from 0"
            )
        return self

    @model_validator(mode="after")
    def _reshuffles_one_fold(self) -> Self:
        if self.reshuffle and self.folds > 1:
            raise ValueError(
                f"reshuffle = true needs one validation set, and folds = {self.folds}: with folds every "
                "sample is held out once; use --folds 1, or leave reshuffle out"
            )
        return self

    @model_validator(mode="after")
    def _caches_frozen_features(self) -> Self:
        if self.cache_features and self.backbone_rate:
            raise ValueError(
                f"cache_features = true needs a frozen backbone, and backbone_rate = "
                f"{self.backbone_rate:g}: use --set backbone_rate=0, or leave cache_features out"
            )
        return self

    @model_validator(mode="after")
    def _pretrained_statistics_exist(self) -> Self:
        if self.batch_norm == "pretrained" and self.weights == "none":
            raise ValueError(
                "batch_norm = pretrained keeps the statistics of trained weights, and weights = none: use "
                "--set weights=NAME, or leave batch_norm out"
            )
        return self

    @model_validator(mode="after")
    def _weak_views_act(self) -> Self:
        fixes = {"backbone_rate = 0": not self.backbone_rate}
        fixes["batch_norm = pretrained"] = self.batch_norm == "pretrained"
        for setting, is_fixed in fixes.items():
            if self.warmup_views == "both" and is_fixed:
                raise ValueError(
                    f"warmup_views = both acts through batch norm, and {setting} freezes it: leave one of "
                    "them out"
                )
        return self

    @model_validator(mode="after")
    def _half_precision_is_on(self) -> Self:
        if self.amp_dtype != "auto" and not self.amp:
            raise ValueError(
                f"amp_dtype = {self.amp_dtype} needs autocast, and amp = false switches it off: leave one "
                "of them out"
            )
        return self

    @model_validator(mode="after")
    def _cycle_covers_the_phase(self) -> Self:
        main = self.epochs - self.warmup_epochs
        if self.cycle_epochs is not None and self.cycle_epochs < main:
            raise ValueError(
                f"cycle_epochs = {self.cycle_epochs} is less than the {main} epochs of the main phase: "
                "raise it, leave it out, or lower --epochs"
            )
        return self

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
    """The validated configuration of a run: ``training``, ``data`` and ``method`` options."""

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
