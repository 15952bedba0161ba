"""Options of data sets whose labels come from users' tables."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bbam_ray.config import DatasetOptions

LabelFormat = Literal[
    "auto", "columns", "vectors", "numbers", "names", "lists", "separated", "single"
]


class LabelOptions(DatasetOptions):
    """Options of data sets whose labels come from users' tables."""

    label_format: LabelFormat = Field(
        "auto",
        description="How tables say labels, where two forms are possible: `columns` of 0 and 1; in a "
        "column `labels`: `vectors` of 0 and 1, class `numbers`, `names`, text that is a list "
        "(`lists`), "
        "text with separators (`separated`) or one label per row (`single`).",
    )
    label_separator: str = Field(
        "auto",
        min_length=1,
        description="Separator of several labels in one cell, also a blank; `auto` finds it.",
    )
    label_columns: str = Field(
        "",
        description="Columns that hold the labels, separated by commas, or FIRST:LAST for all columns "
        "from one to another; empty finds them.",
    )
    ignore_columns: str = Field("", description="Columns that are not labels, separated by commas.")
    column_names: str = Field(
        "",
        description="Names of all columns of CSV and TSV files without a header line, separated by "
        "commas.",
    )
    split_column: str = Field(
        "split",
        description="Column that names the part of each row: train, validation, test or unlabeled; in a "
        "column like `is_test`, true or 1.",
    )
    blank: Literal["error", "unlabeled", "negative"] = Field(
        "error",
        description="Meaning of a blank label cell: an error, not annotated (`unlabeled`), or no label "
        "applies (`negative`).",
    )
    blank_texts: str = Field(
        "", description="Texts that mean a blank label cell, separated by commas: `nan,None`."
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the labelled rows that becomes the test part if the data name none.",
    )


def listed(text: str) -> list[str]:
    """The values of an option that is a list separated by commas."""
    return [value.strip() for value in text.split(",") if value.strip()]
