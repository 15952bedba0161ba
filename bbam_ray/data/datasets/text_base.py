"""What data sets of texts share: they are tokenised once, into rows that all processes of a node read."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.cache.folder import cache_dir, only_one, opened, whole_file
from bbam_ray.data.cache.row_file import bits_of, text_of_bits, write_rows
from bbam_ray.data.cache.token_rows import ABSENT, TokenRows
from bbam_ray.data.cache.tokenizer import TRAINED, TokenEncoder, load_tokenizer, train_tokenizer
from bbam_ray.data.datasets.base import Dataset, Part, Samples, ViewSettings
from bbam_ray.data.formats.image_sources import files_state
from bbam_ray.data.formats.label_tables import Labels
from bbam_ray.files import remove_unfinished


class TextOptions(DatasetOptions):
    """Options of data sets of texts."""

    tokenizer: str | None = Field(
        None,
        description="trained = on the training texts; or a folder or hub name; null = that of the weights "
        "of a transformer, else trained",
    )
    vocabulary: int = Field(8000, ge=100, description="tokens of a tokenizer that is trained")
    max_length: int = Field(
        128, ge=8, le=4096, description="tokens of a text that are kept, from its beginning"
    )


#: of the published data sets: a pretrained BERT, and batches that fit beside it
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
        labels: which of them have which labels, and which are the test part.
        names: N names, where they have one.
    """

    texts: Sequence[str]
    labels: Labels
    names: list[str] | None = None


class TextDataset(Dataset):
    """Texts; a sample is a row of token numbers (max_length,) int32."""

    Options: ClassVar[type[DatasetOptions]] = TextOptions

    @abstractmethod
    def files(self, options: Any, data_dir: Path | None) -> list[Path]:
        """What is read; a UsageError where it is not there."""

    @abstractmethod
    def read(self, options: Any, data_dir: Path | None) -> Documents:
        """All texts of both parts."""

    def check(self, options: Any, data_dir: Path | None) -> None:
        self.files(options, data_dir)

    def state(self, options: Any, data_dir: Path | None) -> str:
        return files_state(self.files(options, data_dir))

    def load(self, options: Any, data_dir: Path | None, part: Part) -> Samples:
        key = f"{options.model_dump_json()} {self.state(options, data_dir)}"
        stem = hashlib.sha256(key.encode()).hexdigest()[:20]
        folder = cache_dir() / self.name
        targets: dict[Part, Path] = {
            "train": folder / f"{stem}-train.rows",
            "test": folder / f"{stem}-test.rows",
        }
        if None in map(opened, targets.values()):
            with only_one(folder):
                if None in map(opened, targets.values()):
                    self._tokenise(options, data_dir, targets)
        rows = TokenRows(targets[part])
        names = tuple(rows.metadata["label_names"])
        is_labeled = bits_of(rows.metadata["is_labeled"], (len(rows),)).astype(bool)
        return Samples(
            rows,
            bits_of(rows.metadata["labels"], (len(rows), len(names))),
            names,
            ViewSettings(
                vocabulary=rows.metadata["vocabulary"], tokenizer=rows.metadata["tokenizer"]
            ),
            None if is_labeled.all() else is_labeled,
            rows.metadata["names"],
        )

    def _tokenise(
        self, options: TextOptions, data_dir: Path | None, targets: dict[Part, Path]
    ) -> None:
        documents = self.read(options, data_dir)
        test = documents.labels.test
        if options.tokenizer in (None, TRAINED):
            seen = [documents.texts[row] for row in np.flatnonzero(~test).tolist()]
            content = train_tokenizer(seen, options.vocabulary)
        else:
            content = load_tokenizer(str(options.tokenizer))
        encode = TokenEncoder(content, options.max_length)
        for part, target in targets.items():
            chosen = np.flatnonzero(test == (part == "test"))
            rows = encode([documents.texts[row] for row in chosen.tolist()])
            metadata = {
                "labels": text_of_bits(documents.labels.labels[chosen]),
                "is_labeled": text_of_bits(documents.labels.is_labeled[chosen]),
                "label_names": list(documents.labels.names),
                "names": [documents.names[row] for row in chosen] if documents.names else None,
                "lengths": (rows != ABSENT).sum(axis=1).tolist(),
                "vocabulary": encode.vocabulary,
                "tokenizer": content,
            }
            remove_unfinished(target)
            with whole_file(target) as temporary:
                write_rows(temporary, rows, rows.shape[1:], np.int32, metadata)
