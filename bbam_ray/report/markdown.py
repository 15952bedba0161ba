"""Markdown documents from the ``*.md.j2`` files in ``templates/``.

Jinja's autoescape is for HTML. Here its ``finalize`` hook escapes every value that a template shows,
except those that the filters below have already made safe.
"""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape
from typing import Any

from jinja2 import Environment

from bbam_ray.report.environment import new_environment
from bbam_ray.report.tables import decimals
from bbam_ray.results.redaction import redacted, redacted_command


class _Escaped(str):
    """Text that is safe in Markdown as it is."""

    __slots__ = ()


def render_markdown(template: str, **values: Any) -> str:
    """Fill in a template; see ``escaped`` for what happens to values.

    Args:
        template: file name in ``templates/``.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = new_environment(finalize=escaped)
    environment.filters |= {"code": code, "decimals": decimals, "yaml_string": yaml_string}
    return environment


def escaped(value: object) -> str:
    """A value as text on one line, without secrets, that starts no HTML, link, emphasis or table cell."""
    if isinstance(value, _Escaped):
        return value
    # Markdown passes HTML through, so HTML is escaped as well.
    line = escape(redacted(" ".join(str(value).split())), quote=False)
    return _Escaped(re.sub(r"([\\`*|\[\]])", r"\\\1", line))


def code(value: object) -> str:
    """A value as a code span. Markdown has no escapes in code, so backticks become apostrophes."""
    line = redacted_command(" ".join(str(value).split()))
    return _Escaped("`" + line.replace("`", "'").replace("|", "\\|") + "`")


def yaml_string(text: str) -> str:
    """A YAML string on one line, safe also in a viewer that does not know YAML front matter."""
    line = json.dumps(" ".join(text.split()))
    return _Escaped(re.sub(r"[<\[`|]", lambda mark: f"\\u{ord(mark[0]):04x}", line))
