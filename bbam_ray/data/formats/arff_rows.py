"""Rows of an ARFF table, dense and sparse, as numbers.

A nominal attribute declared with 0 and 1 is that number; another counts its declared values from 0. What a
sparse row leaves out is therefore 0, but 1 for ``{1,0}``: as in Weka, the value that was declared first.
Refused, with file and line: missing values (nothing is imputed), numbers that are not finite as float32,
and instance weights (training has none, and to drop them would train on other data).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from bbam_ray.data.formats.arff import MISSING, ArffTable, cells
from bbam_ray.errors import quoted, shown, similar

LARGEST = float(np.finfo(np.float32).max)
SPECIAL = "'\"%\\_?{}"  # a row without these needs no tokens; _ because float("1_0") is 10
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)
NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)


class ArffRows:
    """Reads the rows of one table."""

    def __init__(self, table: ArffTable) -> None:
        self.table = table
        self.every = np.arange(len(table.attributes))
        self.binary = np.array([attribute.binary for attribute in table.attributes])
        self.codes = {  # of the nominal attributes that are no number
            a: {value: code for code, value in enumerate(attribute.values or ())}
            for a, attribute in enumerate(table.attributes)
            if attribute.one_hot
        }
        # A value with blanks is one only within quotes, which is nothing for the quick way.
        self.words = {
            a: {value: code for value, code in codes.items() if value.split() == [value]}
            for a, codes in self.codes.items()
        }

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Per row: its line, the attributes that it gives (M,) int64 and their values (M,) float64."""
        for number, line in self.table.data():
            yield number, *(self._plain(line) or self._careful(number, line))

    def _plain(self, line: str) -> tuple[np.ndarray, np.ndarray] | None:
        """A row without quotes and errors; None for all others, so that only speed depends on this."""
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

    def _careful(self, number: int, line: str) -> tuple[np.ndarray, np.ndarray]:
        """Any row, token by token; says what is wrong with it."""
        table = self.table
        tokens = table.tokens(number, line)
        sparse = tokens[0] == ("sign", "{")
        braces = "".join(token for kind, token in tokens if kind == "sign" and token != ",")
        if braces == ("{}{}" if sparse else "{}") and tokens[-1] == ("sign", "}"):
            raise table.error(
                number,
                f"the row has an instance weight ({{{shown(tokens[-2][1])}}}), which training does not "
                "know; remove the weights, or repeat the rows that shall count more",
            )
        if braces != ("{}" if sparse else "") or (sparse and tokens[-1] != ("sign", "}")):
            raise table.error(
                number, "the braces do not match; write {index value, index value} or a dense row"
            )
        given = cells(tokens[1:-1] if sparse else tokens)
        if sparse:
            places = self._places(number, given if given != [[]] else [])
            texts = [cell[1] for cell in given if cell]
        else:
            places, texts = self.every, [text for cell in given for text in cell or [""]]
            if len(texts) != len(places):
                raise table.error(
                    number,
                    f"{len(texts)} values for {len(places)} attributes; correct the row, with quotes "
                    "around values that have blanks or commas",
                )
        given_values = zip(places.tolist(), texts, strict=True)
        values = [self._value(number, a, text) for a, text in given_values]
        return places, np.array(values, dtype=np.float64)

    def _places(self, number: int, pairs: list[list[str]]) -> np.ndarray:
        """The attributes that a sparse row gives."""
        found: dict[int, None] = {}
        for pair in pairs:
            if len(pair) != 2 or not re.fullmatch(r"[0-9]{1,9}", pair[0]):
                what = " ".join(pair).replace(MISSING, "?")[:40]
                raise self.table.error(
                    number, f"{what!r} is not 'index value'; correct the sparse row"
                )
            index = int(pair[0])
            if index in found or index >= len(self.every):
                what = "is given twice" if index in found else "is too large"
                last = len(self.every) - 1
                raise self.table.error(
                    number, f"index {index} {what}; correct it, 0 to {last} once each"
                )
            found[index] = None
        return np.array(list(found), dtype=np.int64)

    def _value(self, number: int, place: int, text: str) -> float:
        attribute, codes = self.table.attributes[place], self.codes.get(place)
        if codes is not None:
            if text in codes:
                return codes[text]
            what = f"but {text[:40]!r} is none of its declared values; {similar(text, codes)}"
        elif NUMBER.fullmatch(text):
            value = float(text)
            if abs(value) <= LARGEST and (value in (0, 1) or not attribute.binary):
                return value
            what = f"but {text[:40]!r} is more than float32 holds; scale the attribute"
            if attribute.binary:
                what = f"declared as 0 or 1, but here it is {text[:40]!r}; correct one of them"
        else:
            odd = "not finite" if NOT_FINITE.fullmatch(text) else "not a number"
            what = f"but {text[:40]!r} is {odd}; correct it or remove the row"
        if text == MISSING:
            what = "missing here (?), and nothing is filled in; give a value or remove the row"
        raise self.table.error(number, f"attribute {quoted(attribute.name)}: {what}")
