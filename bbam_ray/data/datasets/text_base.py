"""The base of all data sets of texts, which are tokenized once, into rows that all processes read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.token_rows import TokenRows
from bbam_ray.data.datasets.base import Dataset, Part, Samples, ViewSettings
from bbam_ray.data.datasets.cached_parts import Targets, cached_parts, samples_of, write_part
from bbam_ray.data.formats.file_list import files_state
from bbam_ray.data.formats.labels.result import Labels
from bbam_ray.data.formats.tokenizer import (
    ABSENT,
    TRAINED,
    TokenEncoder,
    load_tokenizer,
    train_tokenizer,
)
from bbam_ray.data.sampling.composition import TEXT_SHARES, Shares


class TextOptions(DatasetOptions):
    """Options of every data set of texts."""

    tokenizer: str | None = Field(
        None,
        description="`trained` on the training texts, a folder or a hub name; null uses that of the "
        "transformer's weights, else `trained`.",
    )
    vocabulary: int = Field(8000, ge=100, description="Number of tokens of a trained tokenizer.")
    max_length: int = Field(
        128, ge=8, le=4096, description="Tokens kept of each text, from its start."
    )


#: defaults of published data sets: a pretrained BERT, and batches that fit into memory with it
PRETRAINED: dict[str, Any] = {
    "backbone": "transformer",
    "weights": "bert-base-uncased",
    "max_length": 256,
    "labeled_batch": 8,
    "unlabeled_batch": 24,
    "evaluation_batch": 128,
}


@dataclass(frozen=True)
class Documents:
    """All texts of a data set.

    Args:
        texts: N texts.
        labels: their labels, and which of them are the test part.
        names: N names; None if the texts have no names.
    """

    texts: Sequence[str]
    labels: Labels
    names: list[str] | None = None


class TextDataset(Dataset):
    """Texts; a sample is a row of token numbers (max_length,) int32.

    A new data set of texts implements ``files`` and ``read``.
    """

    Options: ClassVar[type[DatasetOptions]] = TextOptions
    labeled_shares: ClassVar[Shares] = TEXT_SHARES

    @abstractmethod
    def files(self, options: Any, data_dir: Path | None) -> list[Path]:
        """The files that ``read`` reads; part of ``state``.

        Raises:
            UsageError: files are missing, and how to get them.
        """

    @abstractmethod
    def read(self, options: Any, data_dir: Path | None) -> Documents:
        """Texts and labels of both parts; called only if the cache lacks them."""

    def complete(self, values: dict[str, Any]) -> dict[str, Any]:
        """The tokenizer of a pretrained transformer is that of its weights, unless another is chosen."""
        weights = values.get("weights", "none")
        if values.get("backbone") != "transformer" or weights == "none":
            return values
        return values | {"tokenizer": values.get("tokenizer") or weights}

    def state(self, options: Any, data_dir: Path | None) -> str:
        return files_state(self.files(options, data_dir))

    def load(self, options: Any, data_dir: Path | None, part: Part) -> Samples:
        def write(targets: Targets) -> None:
            self._tokenize(options, data_dir, targets)

        key = f"{options.model_dump_json()} {self.state(options, data_dir)}"
        rows = cached_parts(self.name, key, TokenRows, write)[part]
        vocabulary, tokenizer = rows.metadata["vocabulary"], rows.metadata["tokenizer"]
        return samples_of(rows, ViewSettings(vocabulary=vocabulary, tokenizer=tokenizer))

    def _tokenize(self, options: TextOptions, data_dir: Path | None, targets: Targets) -> None:
        """Write the tokens of both parts."""
        documents = self.read(options, data_dir)
        test = documents.labels.test
        if options.tokenizer in (None, TRAINED):
            training_texts = [documents.texts[row] for row in np.flatnonzero(~test).tolist()]
            content = train_tokenizer(training_texts, options.vocabulary)
        else:
            content = load_tokenizer(str(options.tokenizer))
        encode = TokenEncoder(content, options.max_length)
        for part, target in targets.items():
            chosen = np.flatnonzero(test == (part == "test"))
            rows = encode([documents.texts[row] for row in chosen.tolist()])
            tokens = {
                "lengths": (rows != ABSENT).sum(axis=1).tolist(),
                "vocabulary": encode.vocabulary,
                "tokenizer": content,
            }
            write_part(target, rows, documents.labels, documents.names, chosen, tokens)
