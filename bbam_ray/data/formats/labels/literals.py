"""Lists that are written as text: JSON, Python, sets, and as NumPy and pandas print arrays."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from itertools import pairwise
from typing import Any

_PAIRS = {"[": "]", "{": "}", "(": ")"}
_CALL = re.compile(
    r"(?:np\.|numpy\.|torch\.)?(?:array|tensor|set|frozenset|list|tuple)"
    r"\((.*?)(?:,\s*dtype=[\w.' <>|]+)?\)",
    re.DOTALL,
)
_SCALAR = re.compile(r"np\.(?:str_|u?int\d*|float\d*|bool_?)\(([^()]*)\)")
_PRINTED = re.compile(r"\[[\s\d.eE+-]*\]|\[(?:\s*(?:True|False))*\s*\]")
_ADJACENT = re.compile(r"['\"]\s+[uUbB]?['\"]")


def is_bracketed(text: str) -> bool:
    """Whether a text begins and ends as a list, a set or an array does."""
    return (len(text) > 1 and _PAIRS.get(text[0]) == text[-1]) or _CALL.fullmatch(text) is not None


def is_quoted(text: str) -> bool:
    """Whether a text begins and ends with the same quotation mark."""
    return len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]


def parse_literal(text: str) -> Any:
    """The list or object that a text is.

    Raises:
        ValueError: neither JSON nor a Python list, nor a printed array.
    """
    if is_quoted(text):
        text = f"[{text}]"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if (call := _CALL.fullmatch(text)) is not None:
        inner = call[1].strip()
        return parse_literal(inner) if inner else []
    if _PRINTED.fullmatch(text):
        return [_number(word) for word in text[1:-1].split()]
    if (joined := _adjacent_texts(text)) is not None:
        return joined
    if "np." in text:
        text = _SCALAR.sub(r"\1", text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about backslashes in texts
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("neither JSON nor a Python list") from None
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else value


def _number(word: str) -> Any:
    if word in ("True", "False"):
        return word == "True"
    value = float(word)
    return (
        int(value) if value.is_integer() and "." not in word and "e" not in word.lower() else value
    )


def _adjacent_texts(text: str) -> list[str] | None:
    """Texts of a printed NumPy array, which has no commas: Python would join them into one.

    Raises:
        ValueError: some are separated by commas and some are not.
    """
    if not _ADJACENT.search(text) or text[:1] != "[":
        return None
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return None
    marks = [token for token in tokens if token.type in (tokenize.STRING, tokenize.OP)]
    adjacent = any(a.type == b.type == tokenize.STRING for a, b in pairwise(marks))
    if not adjacent:
        return None
    texts = [token.string for token in marks if token.type == tokenize.STRING]
    if len(marks) != len(texts) + 2:
        raise ValueError("a comma is missing")
    return [str(ast.literal_eval(item)) for item in texts]
