"""Rows of an ARFF table, dense and sparse, as numbers.

A nominal attribute declared with 0 and 1 is read as that number; another as the index of its declared
value. Values left out in a sparse row are 0, but 1 for ``{1,0}``: as in Weka, the value declared first.
A comma at the end of a dense row is no value. Missing values (?) of labels are nan.
Rejected, with file and line: other missing values (nothing is imputed), numbers that are not finite in
float32, and instance weights (training does not support them, and ignoring them would change the data).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import numpy as np

from bbam_ray.data.formats.arff import MISSING, ArffTable, cells
from bbam_ray.errors import brief, quoted, similar

LARGEST = float(np.finfo(np.float32).max)
SPECIAL = "'\"%\\_?{}"  # rows without these are parsed quickly; _ because float("1_0") is 10
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)
NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)


class ArffRows:
    """Reads the rows of one table.

    Args:
        table: the file.
        labels: names of the attributes that may be missing.
    """

    def __init__(self, table: ArffTable, labels: Collection[str] = ()) -> None:
        self.table, self.labels = table, frozenset(labels)
        self.every = np.arange(len(table.attributes))
        self.binary = np.array([attribute.binary for attribute in table.attributes])
        self.codes = {  # of nominal attributes other than 0/1
            a: {value: code for code, value in enumerate(attribute.values or ())}
            for a, attribute in enumerate(table.attributes)
            if attribute.one_hot
        }
        # A value with spaces needs quotes, which the fast parser does not handle.
        self.words = {
            a: {value: code for value, code in codes.items() if value.split() == [value]}
            for a, codes in self.codes.items()
        }

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Per row: line number, indices of its attributes (M,) int64 and their values (M,) float64."""
        for number, line in self.table.data():
            yield number, *(self._parse_fast(line) or self._parse(number, line))

    def _parse_fast(self, line: str) -> tuple[np.ndarray, np.ndarray] | None:
        """A row without quotes and errors; None for all others, which ``_parse`` handles."""
        sparse = line[0] == "{" and line[-1] == "}"
        inner = line[1:-1].strip() if sparse else line
        if any(character in inner for character in SPECIAL):
            return None
        at, codes = self.every, self.words
        try:
            if sparse:
                pairs = [(int(a), v) for a, v in map(str.split, inner.split(",") if inner else [])]
                at = np.array([a for a, _ in pairs], dtype=np.int64)
                if len(set(at.tolist())) < len(at) or (at < 0).any():
                    return None
                numbers = [codes[a][v] if a in codes else float(v) for a, v in pairs]
            else:
                texts: list[str | int] = [*inner.split(",")]
                if len(texts) == len(at) + 1 and not str(texts[-1]).strip():
                    texts.pop()
                if len(texts) != len(at):
                    return None
                for a, known in codes.items():
                    texts[a] = known[str(texts[a]).strip()]
                numbers = list(map(float, texts))
            values = np.array(numbers, dtype=np.float64)
            bits = values[self.binary[at]]
        except (ValueError, KeyError, IndexError, OverflowError):
            return None
        fine = (np.abs(values) <= LARGEST).all() and ((bits == 0) | (bits == 1)).all()
        return (at, values) if fine else None

    def _parse(self, number: int, line: str) -> tuple[np.ndarray, np.ndarray]:
        """Any row, token by token; raises an error for an invalid one."""
        table = self.table
        tokens = table.tokens(number, line)
        sparse = tokens[0] == ("sign", "{")
        braces = "".join(token for kind, token in tokens if kind == "sign" and token != ",")
        if braces == ("{}{}" if sparse else "{}") and tokens[-1] == ("sign", "}"):
            raise table.error(
                number,
                f"the row has an instance weight ({{{brief(tokens[-2][1])}}}), which training does not "
                "support; remove the weights, or repeat the rows that should count more",
            )
        if braces != ("{}" if sparse else "") or (sparse and tokens[-1] != ("sign", "}")):
            raise table.error(
                number, "the braces do not match; write {index value, index value} or a dense row"
            )
        row = cells(tokens[1:-1] if sparse else tokens)
        if sparse:
            indices = self._indices(number, row if row != [[]] else [])
            texts = [cell[1] for cell in row if cell]
        else:
            if len(row) > 1 and row[-1] == []:
                row.pop()
            indices, texts = self.every, [text for cell in row for text in cell or [""]]
            if len(texts) != len(indices):
                raise table.error(
                    number,
                    f"{len(texts)} values for {len(indices)} attributes; correct the row, and put "
                    "quotes around values with spaces or commas",
                )
        pairs = zip(indices.tolist(), texts, strict=True)
        values = [self._value(number, a, text) for a, text in pairs]
        return indices, np.array(values, dtype=np.float64)

    def _indices(self, number: int, pairs: list[list[str]]) -> np.ndarray:
        """Indices of the attributes in a sparse row."""
        indices: dict[int, None] = {}
        for pair in pairs:
            if len(pair) != 2 or not re.fullmatch(r"[0-9]{1,9}", pair[0]):
                what = " ".join(pair).replace(MISSING, "?")[:40]
                raise self.table.error(
                    number, f"{what!r} is not 'index value'; correct the sparse row"
                )
            index = int(pair[0])
            if index in indices or index >= len(self.every):
                what = "is a duplicate" if index in indices else "is too large"
                last = len(self.every) - 1
                raise self.table.error(number, f"index {index} {what}; use 0 to {last}, each once")
            indices[index] = None
        return np.array(list(indices), dtype=np.int64)

    def _value(self, number: int, index: int, text: str) -> float:
        attribute, codes = self.table.attributes[index], self.codes.get(index)
        if text == MISSING and attribute.name in self.labels:
            return float("nan")
        if codes is not None:
            if text in codes:
                return codes[text]
            what = f"value {text[:40]!r} is not declared; {similar(text, codes)}"
        elif NUMBER.fullmatch(text):
            value = float(text)
            if abs(value) <= LARGEST and (value in (0, 1) or not attribute.binary):
                return value
            what = f"value {text[:40]!r} is out of range for float32; scale the attribute"
            if attribute.binary:
                what = f"declared as 0 or 1, but the value is {text[:40]!r}; correct one of them"
        else:
            problem = "not finite" if NOT_FINITE.fullmatch(text) else "not a number"
            what = f"value {text[:40]!r} is {problem}; correct it or remove the row"
        if text == MISSING:
            what = "the value is missing (?), and nothing is imputed; fill it in or remove the row"
        raise self.table.error(number, f"attribute {quoted(attribute.name)}: {what}")
