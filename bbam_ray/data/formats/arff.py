"""ARFF files as Weka reads them: words, header and lines (rows: ``arff_rows``).

scipy.io.arff reads no sparse rows, hence this reader. Blanks and tabs separate as commas do; text is UTF-8
or, where that fails, Latin-1 (older files). String, date and relational attributes are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bbam_ray.errors import UsageError, quoted
from bbam_ray.files import check_regular

ENCODINGS = ("utf-8-sig", "latin-1")  # the second takes any bytes
MISSING = "\0?"  # a ? without quotes, among values
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<sign>[{},])|(?P<comment>%.*)"""
    r"""|(?P<word>[^\s,{}'"%][^\s,{}%]*)|(?P<open>['"])"""
)


@dataclass(frozen=True)
class Attribute:
    name: str
    line: int
    values: tuple[str, ...] | None  # the declared ones of a nominal attribute; None: numeric

    @property
    def binary(self) -> bool:
        """Declared as {0,1} or {1,0}: a number as well."""
        return self.values is not None and sorted(self.values) == ["0", "1"]

    @property
    def one_hot(self) -> bool:
        return self.values is not None and not self.binary

    @property
    def width(self) -> int:
        """Its columns among the features."""
        return len(self.values) if self.values is not None and self.one_hot else 1


class ArffTable:
    """One file; made by reading its header and counting its rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attributes: list[Attribute] = []
        self.rows = 0
        for self.encoding in ENCODINGS:
            try:
                self._scan()
                break
            except UnicodeDecodeError:
                continue

    def error(self, line: int, what: str) -> UsageError:
        return UsageError(f"{self.path} line {line}: {what}")

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number, text) of the lines that say something; text without blanks around it."""
        try:
            check_regular(self.path)
            with self.path.open(encoding=self.encoding) as file:
                for number, line in enumerate(file, start=1):
                    text = line.strip()
                    if text and text[0] != "%":
                        yield number, text
        except OSError as error:
            raise UsageError(
                f"{self.path}: cannot be read ({error.strerror}); restore it"
            ) from None

    def data(self) -> Iterator[tuple[int, str]]:
        """The lines after @data."""
        lines = self.lines()
        for _, line in lines:
            if _keyword(line) == "@data":
                break
        return lines

    def tokens(self, number: int, text: str) -> list[tuple[str, str]]:
        """(kind, text) of signs, words, ? and quoted texts, these without quotes and escapes."""
        found: list[tuple[str, str]] = []
        for match in TOKEN.finditer(text):
            token = match[0]
            kind = "missing" if token == "?" else str(match.lastgroup)
            if kind == "open":
                raise self.error(
                    number, f"the quote {token} is not closed; close it or write \\{token}"
                )
            if kind == "comment":
                break
            if kind == "quoted":
                token = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), token[1:-1])
            found.append((kind, token))
        return found

    def _scan(self) -> None:
        found: dict[str, Attribute] = {}
        lines, number = self.lines(), 1
        for number, line in lines:
            keyword = _keyword(line)
            if keyword == "@data":
                break
            if keyword == "@attribute":
                attribute = self._attribute(number, line)
                if attribute.name in found:
                    raise self.error(
                        number, f"a second attribute {quoted(attribute.name)}; rename one of them"
                    )
                found[attribute.name] = attribute
            elif keyword != "@relation":
                what = f"expected @relation, @attribute or @data, not {line[:40]!r}; correct it"
                raise self.error(number, what)
        else:
            raise self.error(number, "the file ends without @data; get it again, it may be torn")
        self.attributes, self.rows = list(found.values()), sum(1 for _ in lines)
        if not self.rows or not found:
            what = "no row after" if found else "no @attribute before"
            raise self.error(number, f"{what} @data; get the file again, it may be torn")

    def _attribute(self, number: int, line: str) -> Attribute:
        tokens = self.tokens(number, line[len("@attribute") :])
        name, kind = [token for _, token in [*tokens, ("", ""), ("", "")]][:2]
        if kind.lower() in ("string", "date", "relational"):
            raise self.error(
                number,
                f"attribute {quoted(name)} is of type {kind.lower()}, which is no number; remove it or "
                "make numbers of it (in Weka: Remove, StringToWordVector)",
            )
        named = tokens[:1] and tokens[0][0] != "sign"
        if named and len(tokens) == 2 and kind.lower() in ("numeric", "real", "integer"):
            return Attribute(name, number, None)
        signs = [n for n, (kind, sign) in enumerate(tokens) if kind == "sign" and sign != ","]
        if not named or signs != [1, len(tokens) - 1]:
            raise self.error(
                number,
                f"{line[:60]!r} is not '@attribute name numeric' or '@attribute name {{0,1}}'; "
                "correct it, with quotes around a name that has blanks",
            )
        values = tuple(value for cell in cells(tokens[2:-1]) for value in cell or [""])
        if {"", MISSING} & set(values) or len(set(values)) < len(values):
            raise self.error(
                number,
                f"attribute {quoted(name)} declares no value, ?, or one value twice; correct it",
            )
        return Attribute(name, number, values)


def cells(tokens: list[tuple[str, str]]) -> list[list[str]]:
    """The texts between commas, so at least one cell, each with any number of texts."""
    found: list[list[str]] = [[]]
    for kind, token in tokens:
        if (kind, token) == ("sign", ","):
            found.append([])
        else:
            found[-1].append(MISSING if kind == "missing" else token)
    return found


def _keyword(line: str) -> str:
    match = re.match(r"@[a-z]+\b", line, re.IGNORECASE)
    return match[0].lower() if match else ""
