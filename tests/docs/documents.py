"""Reading the Markdown of the repository: files, headings, links, and the commands in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / folder / "README.md" for folder in ("benchmarks", "stress", "search_spaces")),
        ROOT / "benchmarks" / "comparison.md",
        *(ROOT / "launch").glob("*/README.md"),
    ]
)
_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PROGRAM = re.compile(r"(?:bbam-ray|python launch/([a-z]+)\.py)(?: |$)")


def name_of(path: Path) -> str:
    """The path of a document in the repository."""
    return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """The text without its code blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Targets of links and images outside of code."""
    return _LINK.findall(_INLINE.sub("", prose(text)))


def anchors(text: str) -> set[str]:
    """What a link may name after ``#``: its headings, as forges and MkDocs spell them."""
    return {slug(heading) for heading in _HEADING.findall(prose(text))}


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"\s+", "-", plain)


def inline_code(text: str) -> list[str]:
    """What is between backticks outside of code blocks."""
    return _INLINE.findall(prose(text))


def code_lines(text: str) -> Iterator[str]:
    """Lines of code blocks, continued lines joined, without comments."""
    for block in _FENCE.findall(text):
        body = "\n".join(block.splitlines()[1:-1]).replace("\\\n", " ")
        for line in body.splitlines():
            yield re.sub(r"\s#.*", "", line).strip()


def commands(text: str) -> Iterator[list[str]]:
    """The words after ``bbam-ray``, from code blocks and inline code."""
    for line in [*code_lines(text), *inline_code(text)]:
        match = _PROGRAM.match(line)
        if match is None:
            match = re.search(r"-- +python launch/([a-z]+)\.py ", line)
        if match is not None:
            words = shlex.split(line[match.end() :].replace("'", ""))
            yield [match[1], *words] if match[1] else words
