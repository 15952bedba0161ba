"""HTML pages from the files in ``templates/`` and ``assets/``, each page one offline file.

Autoescape is on: a template shows every value as text. Only ``Markup`` is inserted as HTML, and we use
it for our own assets and for what Plotly generates.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from bbam_ray.errors import UsageError
from bbam_ray.report.environment import new_environment
from bbam_ray.report.plotly_library import compressed_library
from bbam_ray.report.tables import decimals, number_text

_GENERATOR = "bbam-ray"
#: How every page marks itself, in its first lines; see ``page.html.j2``.
_MARK = f'<meta name="generator" content="{_GENERATOR}">'


def render_page(template: str, **values: Any) -> str:
    """Fill in a template.

    Args:
        template: file name in ``templates/``.
        values: for the template; texts are escaped there.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = new_environment(autoescape=True)
    environment.globals |= {
        "asset": _asset,
        "compressed_library": compressed_library,
        "generator": _GENERATOR,
    }
    environment.filters |= {"decimals": decimals, "number": number_text}
    environment.filters["slug"] = slug
    return environment


def _asset(name: str) -> Markup:
    path = resources.files("bbam_ray.report") / "assets" / name
    return Markup(path.read_text(encoding="utf-8"))  # Markup: a file of this package


def slug(text: str) -> str:
    """A text as the id of an element: "Which settings matter" becomes "which-settings-matter"."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "section"


def check_replaceable(path: Path) -> None:
    """Check that a page may be written to a path: there is no file yet, or a page of ours.

    Raises:
        UsageError: another file, a folder, or the parent folder does not exist.
    """
    if not path.parent.is_dir():
        raise UsageError(
            f"{path}: folder {path.parent} does not exist; create it or choose another"
        )
    if not path.exists():
        return
    beginning = b""
    if path.is_file():
        with path.open("rb") as file:
            beginning = file.read(1000)
    if _MARK.encode() not in beginning:
        raise UsageError(f"{path} exists and is no page of bbam-ray; choose another --output")
