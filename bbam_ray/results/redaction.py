"""Remove secrets from everything that is stored or printed: commands, messages, tracebacks, pages.

Secrets are the user information of URIs; values with a name such as "password" in assignments, queries,
flags and mappings; and well-known formats of keys. Names are kept, so that a reader sees what was removed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

#: Replaces a secret; needs no quotes in a shell.
MARK = "REDACTED"

# "tokens" and "tokenizer" are words of this field, not secrets.
_NAME = (
    r"(?:secret|token(?!s|iz)|passw(?:or)?d|passphrase|pwd|credential|signature|authorization|api[_-]?key"
    r"|(?:access|account|auth|client|encryption|license|master|private|session|shared|signing|storage)"
    r"[_-]?key)"
)
_WORD = rf"[\w.\-]*{_NAME}[\w.\-]*"
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_PLAIN = r"[^\s&'\"]+"

_PATTERNS = [
    (re.compile(pattern, flags), replacement)
    for pattern, flags, replacement in (
        # pathlib removes one of two slashes; a slash in a secret should be escaped, but may not be
        (r"(\b[a-z][a-z0-9+.\-]*:/{1,2})[^\s/'\"]*@", re.I, rf"\1{MARK}@"),
        (
            r"(\b[a-z][a-z0-9+.\-]*:/{1,2})[^\s/:'\"@]*:(?!\d{1,5}/)[^\s'\"]*@",
            re.I,
            rf"\1{MARK}@",
        ),
        (
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.S,
            MARK,
        ),
        (r"\b(Bearer|Basic)(\s+)[\w.+/=~\-]{8,}", re.I, rf"\1\2{MARK}"),
        (
            rf"(['\"]{_WORD}['\"]\s*:\s*)(?!['\"]?{MARK})(?:b?(?:{_QUOTED})|[^\s,}}]+)",
            re.I,
            rf"\1'{MARK}'",
        ),
        (
            rf"^(\s*(?:-\s+)?{_WORD}:[^\S\n]+)(?!Bearer |Basic )(?:{_QUOTED}|\S+)[^\S\n]*$",
            re.I | re.M,
            rf"\1{MARK}",
        ),
        # a quoted word: all of it is the value
        (rf"(?<![=\w])(['\"])({_WORD}=)[^'\"]*\1", re.I, rf"\1\2{MARK}\1"),
        (rf"({_WORD}=)(?!{MARK})(?:b?(?:{_QUOTED})|{_PLAIN})", re.I, rf"\1{MARK}"),
        (rf"([?&](?:key|sig|sas)=)(?!{MARK}){_PLAIN}", re.I, rf"\1{MARK}"),
        (rf"(?<!\S)(--?(?:{_WORD}|key)\s+)(?!-)(?:{_QUOTED}|\S+)", re.I, rf"\1{MARK}"),
        (r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b", 0, MARK),
        (r"\bAIza[\w\-]{35}", 0, MARK),
        (r"\bya29\.[\w\-.]{10,}", 0, MARK),
        (r"\b(?:gh[pousr]_|github_pat_)\w{20,}", 0, MARK),
        (r"\bglpat-[\w\-]{20,}", 0, MARK),
        (r"\bhf_[A-Za-z0-9]{30,}", 0, MARK),
        (r"\bxox[abprs]-[\w\-]{10,}", 0, MARK),
        (r"\bwandb_v\d_\w{20,}", 0, MARK),
        (r"\beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]{8,}", 0, MARK),
    )
]
_ASSIGNED = re.compile(rf"([^=?]*?{_WORD}=).+", re.I | re.S)
_QUERY = re.compile(rf"([?&](?:{_WORD}|key|sig|sas)=)[^&]*", re.I | re.S)
_USER = re.compile(r"\b([a-z][a-z0-9+.\-]*:/{1,2})[^/?#]*@", re.I | re.S)
_FLAG = re.compile(rf"--?(?:{_WORD}|key)", re.I)


def redacted(text: str) -> str:
    """A text without its secrets; a text without any is returned unchanged."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted_words(words: Iterable[str]) -> list[str]:
    """The words of a command without their secrets, which may contain spaces and quotes."""
    safe: list[str] = []
    secret = False
    for word in words:
        if secret and not word.startswith("--"):
            word = MARK
        secret = _FLAG.fullmatch(word) is not None
        assigned = _ASSIGNED.fullmatch(word)
        word = f"{assigned[1]}{MARK}" if assigned else word
        safe.append(redacted(_USER.sub(rf"\1{MARK}@", _QUERY.sub(rf"\1{MARK}", word))))
    return safe


def redacted_command(command: str) -> str:
    """A command line without its secrets; if a shell cannot parse it, it is treated as text."""
    try:
        words = shlex.split(command)
    except ValueError:
        return redacted(command)
    hidden = redacted_words(words)
    return redacted(command) if hidden == words else shlex.join(hidden)
