"""Mutations of valid files, drawn by Hypothesis.

Most follow the structure of the file (lines, values, nested documents, arrays, columns, members of an
archive), so that the damage passes the first check; the rest flip, cut or invent bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

TEXTS = (
    *(
        "",
        " ",
        "nan",
        "-.inf",
        "1e400",
        "9" * 30,
        "9" * 5000,
        "-1",
        "0",
        "1",
        "null",
        "true",
        "2.5",
    ),
    *(
        "\0",
        "\ufeff",
        "é\u2028",
        "a\nb",
        "a\r\nb",
        "'",
        '"',
        "../..",
        "/x",
        "x" * 20_000,
        "[",
        "{",
        "?",
    ),
    *("*a", "&a [*a]", "!!python/object:os.system x", "%", "#", "=", "1_0", "0x1f", "٣", "\ud800"),
    *(
        "0x" + "f" * 5000,
        "1:1:1",
        "2001-13-45",
        "<<",
        "labels",
        "split",
        "test",
        "unlabeled",
        "~",
        "\t",
    ),
    *("-" * 200, "`", "@", "@data", "%s", "{0}", "\x1b[31m", "1" + ":0" * 2000, "1e5", "-0.0"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, -0.5, 1e300, 5e-324, float("nan")),
    *(float("inf"), float("-inf"), [], {}, [[]], {"a": {}}, [None], ["a", "a"], {"": 1}, *TEXTS),
)
_LAUGHS = "\n".join(
    ["a0: &a0 [x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10))]
)
_MERGES = "\n".join(
    [
        "a0: &a0 {x: 1}",
        *(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}" for k in range(1, 10)),
    ]
)
WHOLE = (
    *(b"", b"\0" * 100, b"[" * 5000, b'{"a":' * 5000, b"[" * 5000 + b"]" * 5000, b"\xef\xbb\xbf"),
    *(_LAUGHS.encode(), _MERGES.encode(), f"scale: {_LAUGHS[4:7]}\nx: *a0".encode(), b"a: &a [*a]"),
    *(
        "é: 1\n".encode("utf-16"),
        b"\xff" * 50,
        b"- " * 5000,
        b"a: " * 3000,
        b"? " * 3000,
        b"\n" * 9,
    ),
    *(
        b"scale: &a [1, *a]",
        b"? [1, 2]\n: 3",
        b"1: 2",
        b"PK\x05\x06" + b"\0" * 18,
        b"PAR1PAR1",
        b"null",
    ),
    *(b"<" + b"a><" * 5000, b"<!DOCTYPE a>", b'"' * 999, b"scale=[" * 50, b"%YAML 9.9\n---\na: 1"),
)


def damaged(draw: Draw, content: bytes) -> bytes:
    """Bytes flipped, inserted, removed, duplicated or set to zero, or the end cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 40))
        kind = draw(
            st.sampled_from(("flip", "flip", "insert", "remove", "duplicate", "cut", "zero"))
        )
        if kind == "flip" and data:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            data[start:start] = draw(st.binary(max_size=9))
        elif kind == "remove":
            del data[start : start + length]
        elif kind == "duplicate":
            data[start:start] = data[start : start + length]
        elif kind == "zero":
            data[start : start + length] = bytes(len(data[start : start + length]))
        elif kind == "cut":
            del data[start:]
    return bytes(data)


def text_lines(draw: Draw, content: bytes) -> bytes:
    """Text with lines or values in them replaced, or with other line ends or a byte order mark."""
    lines = content.decode("utf-8").split("\n")
    for _ in range(draw(st.integers(1, 3))):
        index = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(("value", "value", "value", "remove", "duplicate", "swap")))
        if kind == "remove" and len(lines) > 1:
            del lines[index]
        elif kind == "duplicate":
            lines.insert(index, lines[index])
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[index], lines[other] = lines[other], lines[index]
        elif values := list(re.finditer(r"[\w.+-]+|[^\w\s]", lines[index])):
            match = draw(st.sampled_from(values))
            line = lines[index]
            lines[index] = (
                line[: match.start()] + draw(st.sampled_from(TEXTS)) + line[match.end() :]
            )
    joined: str = draw(st.sampled_from(("\n", "\n", "\n", "\r\n", "\r"))).join(lines)
    prefix: str = draw(st.sampled_from(("", "", "", "\ufeff", "\0")))
    return (prefix + joined).encode("utf-8", "surrogatepass")


def nested(draw: Draw, document: Any) -> Any:
    """A document in which one value, key or entry is replaced, removed or duplicated."""
    if not document or not isinstance(document, (dict, list)) or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(VALUES))
    items = dict(document) if isinstance(document, dict) else dict(enumerate(document))
    key = draw(st.sampled_from(list(items)))
    kind = draw(st.sampled_from(("deeper", "deeper", "deeper", "remove", "rename", "duplicate")))
    if kind == "deeper":
        items[key] = nested(draw, items[key])
    elif kind == "duplicate" and isinstance(document, list):
        return [*document, document[key]]
    else:
        value = items.pop(key)
        if kind == "rename":
            items[draw(st.sampled_from(TEXTS))] = value
    return items if isinstance(document, dict) else list(items.values())


def json_document(draw: Draw, content: bytes) -> bytes:
    return json.dumps(nested(draw, json.loads(content))).encode()


def yaml_document(draw: Draw, content: bytes) -> bytes:
    changed = nested(draw, yaml.safe_load(content))
    text: str = yaml.safe_dump(changed, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")
