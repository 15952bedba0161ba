"""Small XML files from elsewhere: read without document type definitions, and so without entities."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from bbam_ray.errors import UsageError, brief
from bbam_ray.files import check_regular

_ENCODINGS = ("utf-8-sig", "latin-1")  # Latin-1 accepts any bytes


def read_xml(path: Path, kind: str, way_out: str) -> ElementTree.Element:
    """The root element of a file.

    Args:
        path: UTF-8 or Latin-1.
        kind: of the file, for example "a list of labels".
        way_out: what to do about a file that is not XML.

    Raises:
        UsageError: not readable, not XML, or with a DOCTYPE or ENTITY.
    """
    # Decoded here, without null bytes, so that no encoding (UTF-16) can hide a DTD from the check.
    try:
        check_regular(path)
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); restore it") from None
    try:
        text = content.decode(_ENCODINGS[0])
    except UnicodeDecodeError:
        text = content.decode(_ENCODINGS[1])
    if "\0" in text:
        raise UsageError(f"{path}: contains null bytes, maybe UTF-16; save it as UTF-8")
    if declaration := re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise UsageError(
            f"{path}: contains {declaration[0]}, which {kind} does not need; remove it"
        )
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UsageError(f"{path}: not valid XML ({brief(error)}); {way_out}") from None
