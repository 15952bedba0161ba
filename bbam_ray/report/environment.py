"""How Jinja2 reads ``templates/``; ``page`` and ``markdown`` decide how values are escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def new_environment(**escaping: Any) -> Environment:
    """An environment for our templates, in which a missing value is an error.

    Args:
        escaping: ``autoescape`` or ``finalize``, as in ``jinja2.Environment``.
    """
    return Environment(
        loader=PackageLoader("bbam_ray.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **escaping,
    )
