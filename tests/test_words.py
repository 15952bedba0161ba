"""Plain words: phrases and names that this project does not use, with what to use instead.

The list is also in CONTRIBUTING.md. It is held over everything that a user or a developer reads: the
package, the documentation, search spaces, examples and cluster files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: regular expression to what to write instead; matched without regard to case
PHRASES = {
    r"stands? twice": "duplicate",
    r"(go|goes|gone|went|going) on\b": "resume, continue",
    r"\bto be had\b": "available",
    r"\bshall\b": "must, will",
    r"\bmend(s|ed|ing)?\b": "repair, fix",
    r"\b(is|are|was|were|be|been) told\b": "is reported, is passed",
    r"\b(no|some)body\b": "no one; or name who",
    r"\banew\b": "again; rebuild",
    r"\bwhatever\b": "any; regardless of",
    r"leads? out of": "points outside",
    r"gives? way to": "is replaced by",
    r"\bthe truth\b": "the ground truth, the true labels",
    r"\bthe like\b": "similar",
    r"\bbare Ray\b": "Ray alone",
    r"\bnot asked for\b": "unused",
    r"\bto the (very )?last\b(?! (digit|epoch|bit))": "until the end",
    r"\bas it were\b": "nothing",
    r"\bfor good\b": "permanently",
    r"\bis looked (at|for)\b": "is checked, is searched",
    r"\bmakes? much of\b": "expands",
    r"\bbrought? back\b": "restored, backported",
    r"\bcomes? again\b": "is retried",
    r"\bnever begun\b": "empty",
}
#: identifiers that say what happened to a value, not what it is
NAMES = {
    *("told", "said", "mine", "looked", "heart", "beats", "remarks", "kept", "brought", "heard"),
    *("found", "given", "others", "there", "shown", "place", "places", "asked", "spoken"),
    *("Bar", "Beats", "Heart", "Material", "Memory", "RunBook", "Setting", "ViewChance"),
    *("answer", "masked_mean", "kept_split", "say_repaired", "never_begun"),
}
READ = (
    *("bbam_ray/**/*.py", "launch/**/*.*", "examples/*.py", "search_spaces/**/*.*", "docs/**/*.md"),
    *("*.md", "benchmarks/*.py", "benchmarks/*.md", "stress/*.py", "stress/*.md", "Makefile"),
    *("bbam_ray/**/*.j2", "bbam_ray/**/*.js", "bbam_ray/**/*.css", "pyproject.toml"),
)
FILES = sorted({path for pattern in READ for path in ROOT.glob(pattern) if path.is_file()})
PYTHON = sorted(path for path in (ROOT / "bbam_ray").rglob("*.py"))


def phrases(text: str) -> Iterator[str]:
    """Line number, phrase and its replacement for each banned phrase, also across line breaks."""
    for pattern, instead in PHRASES.items():
        for match in re.finditer(pattern.replace(" ", r"[\s#*]+"), text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield f"line {line}: '{match[0]}'; write: {instead}"


def names(source: str) -> Iterator[str]:
    """Line number and name for each banned identifier that a file defines."""
    for node in ast.walk(ast.parse(source)):
        defined = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined = node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined = node.name
        elif isinstance(node, ast.arg):
            defined = node.arg
        if defined is not None and defined.lstrip("_") in NAMES:
            yield f"line {getattr(node, 'lineno', 0)}: {defined}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_uses_plain_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    listed = text.split("<!-- words -->")  # the list itself, in CONTRIBUTING.md
    assert list(phrases("\n".join(listed[::2]))) == []


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_defines_names_that_say_what_a_value_is(path: Path) -> None:
    assert list(names(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    ["A study that goes\non as before.", "# It is mended\n", "key 'x' stands twice", "You SHALL"],
)
def test_a_banned_phrase_is_noticed(text: str) -> None:
    assert len(list(phrases(text))) == 1


@pytest.mark.parametrize(
    "source", ["told = 1", "class RunBook: ...", "def f(heart): ...", "for _kept in x: pass"]
)
def test_a_banned_name_is_noticed(source: str) -> None:
    assert len(list(names(source))) == 1


def test_plain_text_passes() -> None:
    assert not list(
        phrases("The study resumes from its checkpoint; the ground truth stays hidden.")
    )
    assert not list(names("checkpoint = rows[index]"))
