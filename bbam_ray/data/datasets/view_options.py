"""Options that decide how stored images become network inputs, for every data set of images."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator

from bbam_ray.config import DatasetOptions
from bbam_ray.data.datasets.base import ViewSettings


class ViewOptions(DatasetOptions):
    """Options of the views of images."""

    normalize: bool = Field(
        True,
        description="Subtract the mean and divide by the standard deviation that the network or the data "
        "set has; false leaves inputs in [0, 1], as published.",
    )
    strong_view: Literal["affine", "uda"] = Field(
        "affine",
        description="Strong view: `affine` changes shape and color by `strong_magnitude` and erases a "
        "square, `uda` erases a rectangle and applies two operations of RandAugment, as published.",
    )

    def applied(self, views: ViewSettings) -> ViewSettings:
        """How images become network inputs with these options.

        Args:
            views: of the data set.
        """
        changed = replace(views, strong_view=self.strong_view)
        return changed if self.normalize else replace(changed, mean=(0.0,), std=(1.0,))


class MirroredViewOptions(ViewOptions):
    """Options of the views of images that may be mirrored."""

    flip_when_scoring: bool = Field(
        False,
        description="Mirror images at random also where the main phase scores them for pseudo-labels and "
        "statistics, as published; validation, test and prediction never do.",
    )

    def applied(self, views: ViewSettings) -> ViewSettings:
        return replace(super().applied(views), flip_when_scoring=self.flip_when_scoring)

    @model_validator(mode="after")
    def _mirrors_where_labels_stay(self) -> Self:
        if self.flip_when_scoring and not getattr(self, "flip", True):
            raise ValueError(
                "flip_when_scoring = true mirrors images, and flip = false says that mirrored images have "
                "other labels; leave one of the two out"
            )
        return self
