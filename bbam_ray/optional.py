"""Optional packages: import them when they are used, with a message that says how to install them."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from bbam_ray.errors import MissingPackageError


def needed(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package.

    Args:
        package: name of the module.
        extra: of this project, which installs it.
        purpose: what needs it, for the message.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise _missing(package, extra, purpose) from None


def check_installed(package: str, extra: str, purpose: str) -> None:
    """Raise a MissingPackageError unless an optional package is installed, without importing it."""
    if find_spec(package) is None:
        raise _missing(package, extra, purpose)


def _missing(package: str, extra: str, purpose: str) -> MissingPackageError:
    return MissingPackageError(
        f"{purpose} needs the package {package}, which is not installed; "
        f"pip install 'bbam-ray[{extra}]'"
    )
