"""Plotly's JavaScript library for a page: only the kinds of traces that reports draw, and compressed.

The plotly package ships one bundle with all kinds of traces (4.8 MB), among them maps and WebGL. Its
traces register in one call at the end, and each comes after the modules that it needs. So everything
between the last trace that we need and that call can be left out.
"""

from __future__ import annotations

import base64
import gzip
import re
from functools import cache

from plotly.offline import get_plotlyjs

#: The traces that figures of this package may use, in the order of the bundle.
TRACES = ("scatter", "bar", "contour")

_REGISTRATION = re.compile(
    r"var [\w$]+=[\w$]+\(\([\w$,]+\)=>\{var ([\w$]+)=[\w$]+\(\);\1\.register\(\["
)
_ENTRIES = re.compile(r"((?:[\w$]+\(\),?)+)\]")


@cache
def compressed_library() -> str:
    """The library for the traces in ``TRACES``, as gzip in base64; a page decompresses it by itself."""
    content = gzip.compress(library().encode(), 9, mtime=0)
    return base64.b64encode(content).decode("ascii")


@cache
def library() -> str:
    """The library for the traces in ``TRACES``."""
    return reduced(get_plotlyjs())


def reduced(bundle: str) -> str:
    """Leave the traces after the last of ``TRACES`` out of a bundle.

    Args:
        bundle: ``plotly.min.js`` of plotly.js 3 or 4. Another one, whose structure we do not know, is
            returned as it is: then pages are larger.
    """
    registration = _REGISTRATION.search(bundle)
    last = re.search(rf'moduleType:"trace",name:"{TRACES[-1]}"', bundle)
    entries = _ENTRIES.match(bundle, registration.end()) if registration else None
    if registration is None or last is None or entries is None:
        return bundle
    modules = entries[1].split(",")
    starts = [bundle.find(f"var {module.removesuffix('()')}=") for module in modules]
    # The module of a trace ends where the next statement begins.
    count = next((i for i, start in enumerate(starts, 1) if start > last.end()), None)
    if count is None or starts != sorted(starts) or starts[0] < 0:
        return bundle
    end = bundle.index("});", starts[count - 1]) + 3
    return (
        bundle[:end]
        + bundle[registration.start() : registration.end()]
        + ",".join(modules[:count])
        + bundle[entries.end() - 1 :]
    )
