"""Notes about settings of views that do nothing in a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bbam_ray.methods import METHODS


def unused_view_setting(method: str, settings: Mapping[str, Any]) -> str | None:
    """A warning about a setting of views that a run does not use; None if it uses all.

    Args:
        method: of the run.
        settings: that the user has chosen, by name.
    """
    if "strong_magnitude" in settings and settings.get("strong_view") == "uda":
        return (
            "note: strong_view = uda draws its levels itself and does not use strong_magnitude; leave it "
            "out"
        )
    if settings.get("flip_when_scoring") and not METHODS[method].refreshes:
        return (
            f"note: method '{method}' has no pass over all samples that flip_when_scoring could mirror; "
            "leave it out"
        )
    return None
