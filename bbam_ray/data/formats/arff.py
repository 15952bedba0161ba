"""ARFF files as Weka reads them: tokens, header and lines (rows: ``arff_rows``).

scipy.io.arff does not read sparse rows, hence this reader. Spaces and tabs separate like commas; text is
UTF-8 or, if that fails, Latin-1 (older files). ``@end`` may end the rows. String, date and relational
attributes are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bbam_ray.errors import UsageError, quoted
from bbam_ray.files import check_regular

ENCODINGS = ("utf-8-sig", "latin-1")  # Latin-1 accepts any bytes
MISSING = "\0?"  # a value that is an unquoted ?
MEKA = re.compile(r"-C\s+([+-]?[0-9]{1,6})\b")
#: words for absent and present
_PAIRS = (("0", "1"), ("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("-1", "1"))
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<sign>[{},])|(?P<comment>%.*)"""
    r"""|(?P<word>[^\s,{}'"%][^\s,{}%]*)|(?P<open>['"])"""
)


@dataclass(frozen=True)
class Attribute:
    """A declared column of an ARFF table."""

    name: str
    line: int
    values: tuple[str, ...] | None  # declared values of a nominal attribute; None = numeric

    @property
    def binary(self) -> bool:
        """Declared as {0,1} or {1,0}, and so read as a number."""
        return self.values is not None and sorted(self.values) == ["0", "1"]

    @property
    def one_hot(self) -> bool:
        """Nominal with other values than 0 and 1."""
        return self.values is not None and not self.binary

    @property
    def bits(self) -> tuple[int, ...] | None:
        """What the declared values mean as values of a label: 0 or 1 each; None if they are no such pair.

        The pairs are 0 and 1 in any notation, false and true, no and yes, f and t, n and y, -1 and 1. One
        of the two may be missing.
        """
        words = [_plain(value) for value in self.values or ()]
        for pair in _PAIRS:
            if words and len(set(words)) == len(words) and set(words) <= set(pair):
                return tuple(pair.index(word) for word in words)
        return None

    @property
    def width(self) -> int:
        """Number of feature columns."""
        return len(self.values) if self.values is not None and self.one_hot else 1


class ArffTable:
    """One file; creating it reads the header and counts the rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attributes: list[Attribute] = []
        self.relation = ""  # the text after @relation, with quotes
        self.rows = 0
        for self.encoding in ENCODINGS:
            try:
                self._scan()
                break
            except UnicodeDecodeError:
                continue

    def error(self, line: int, what: str) -> UsageError:
        """An error that names the file and a line."""
        return UsageError(f"{self.path} line {line}: {what}")

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number, stripped text) of the lines that are neither blank nor comments."""
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
        """The lines after @data, until @end if there is one."""
        lines = self.lines()
        for _, line in lines:
            if _keyword(line) == "@data":
                break
        yield from self._until_end(lines)

    def _until_end(self, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for number, line in lines:
            if line[0] == "@" and _keyword(line) == "@end":
                break
            yield number, line
        for number, _ in lines:
            raise self.error(number, "a line after @end; remove it, or remove @end")

    def tokens(self, number: int, text: str) -> list[tuple[str, str]]:
        """(kind, text) of signs, words, missing values and quoted texts, without quotes and escapes."""
        tokens: list[tuple[str, str]] = []
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
            tokens.append((kind, token))
        return tokens

    def _scan(self) -> None:
        attributes: dict[str, Attribute] = {}
        lines, number = self.lines(), 1
        for number, line in lines:
            keyword = _keyword(line)
            if keyword == "@data":
                break
            if keyword == "@attribute":
                attribute = self._attribute(number, line)
                if attribute.name in attributes:
                    raise self.error(
                        number, f"duplicate attribute {quoted(attribute.name)}; rename one of them"
                    )
                attributes[attribute.name] = attribute
            elif keyword == "@relation":
                self.relation = line[len("@relation") :].strip()
            else:
                what = f"expected @relation, @attribute or @data, not {line[:40]!r}; correct it"
                raise self.error(number, what)
        else:
            raise self.error(
                number, "the file ends without @data; copy it again, it may be truncated"
            )
        self.attributes, self.rows = (
            list(attributes.values()),
            sum(1 for _ in self._until_end(lines)),
        )
        if not self.rows or not attributes:
            what = "no row after" if attributes else "no @attribute before"
            raise self.error(number, f"{what} @data; copy the file again, it may be truncated")

    def labels_by_relation(self) -> tuple[str, ...]:
        """The labels that MEKA's option in the relation names: ``-C 6`` the first six, ``-C -6`` the last.

        Raises:
            UsageError: no such option, or one that does not leave features.
        """
        match = MEKA.search(self.relation)
        count, every = int(match[1]) if match else 0, len(self.attributes)
        if match is None or not 0 < abs(count) < every:
            what = f"the relation's {match[0]}" if match else "no -C in the relation"
            raise UsageError(
                f"{self.path}: which of its {every} attributes are labels is not known ({what}); add "
                f"Mulan's {self.path.stem}.xml, or write @relation 'name: -C 6' if the first 6 are (-C -6 "
                "for the last 6)"
            )
        chosen = self.attributes[:count] if count > 0 else self.attributes[count:]
        return tuple(attribute.name for attribute in chosen)

    def _attribute(self, number: int, line: str) -> Attribute:
        tokens = self.tokens(number, line[len("@attribute") :])
        name, kind = [token for _, token in [*tokens, ("", ""), ("", "")]][:2]
        if kind.lower() in ("string", "date", "relational"):
            raise self.error(
                number,
                f"attribute {quoted(name)} is of type {kind.lower()}, which is not numeric; remove it or "
                "convert it to numbers (in Weka: Remove, StringToWordVector)",
            )
        named = tokens[:1] and tokens[0][0] != "sign"
        if named and len(tokens) == 2 and kind.lower() in ("numeric", "real", "integer"):
            return Attribute(name, number, None)
        signs = [n for n, (kind, sign) in enumerate(tokens) if kind == "sign" and sign != ","]
        if not named or signs != [1, len(tokens) - 1]:
            raise self.error(
                number,
                f"{line[:60]!r} is not '@attribute name numeric' or '@attribute name {{0,1}}'; "
                "correct it, and put quotes around a name with spaces",
            )
        values = tuple(value for cell in cells(tokens[2:-1]) for value in cell or [""])
        if {"", MISSING} & set(values) or len(set(values)) < len(values):
            raise self.error(
                number,
                f"attribute {quoted(name)} declares an empty, missing (?) or duplicate value; correct it",
            )
        return Attribute(name, number, values)


def cells(tokens: list[tuple[str, str]]) -> list[list[str]]:
    """Tokens grouped into cells by commas; at least one cell, each with any number of texts."""
    groups: list[list[str]] = [[]]
    for kind, token in tokens:
        if (kind, token) == ("sign", ","):
            groups.append([])
        else:
            groups[-1].append(MISSING if kind == "missing" else token)
    return groups


def _plain(value: str) -> str:
    """A declared value for comparison: in lower case, and 0, 1 and -1 without decimals."""
    number = re.fullmatch(r"([+-]?)(0|1)(\.0*)?", value.strip())
    if number:
        return "-1" if (number[1], number[2]) == ("-", "1") else number[2]
    return value.strip().lower()


def _keyword(line: str) -> str:
    match = re.match(r"@[a-z]+\b", line, re.IGNORECASE)
    return match[0].lower() if match else ""
