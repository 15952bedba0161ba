"""Commands whose results or studies are on object storage work on local copies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def with_studies(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """A command that reads ``studies`` and may leave files in them; any of them may be a URI."""

    @functools.wraps(command)
    def run(**options: Any) -> int | None:
        from bbam_ray.results.remote import address_of, open_study

        folders: list[Path] = []
        with ExitStack() as stack:
            for path in options["studies"]:
                if (uri := address_of(path)) is None:
                    folders.append(path)
                    continue
                storage, folder = open_study(uri)
                stack.enter_context(storage)
                folders.append(folder)
            return command(**{**options, "studies": folders})

    return run
