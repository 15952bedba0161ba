"""Commands whose results, studies or models are on object storage work on copies that are kept in step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console


def with_storage(command: Callable[..., int]) -> Callable[..., int]:
    """A command that writes a study into ``results``, which may be a URI.

    The copy on this disk is brought up to date before, and uploaded while the command runs.
    """

    @functools.wraps(command)
    def run(**given: Any) -> int:
        from bbam_ray.results.remote import address_of
        from bbam_ray.results.storage import Storage

        uri = address_of(given.get("results", ""))
        if uri is None:
            return command(**given)
        storage = Storage(uri)
        for name in (given.get("name"), given.get("warm_start")):
            if name:
                storage.fetch(str(name))
        given["results"] = storage.local
        if given.get("dry_run"):
            return command(**given)
        storage.check_writable()
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(
            f"results go to {storage.uri}, by way of {storage.local}", style="dim", markup=False
        )
        with storage:
            return command(**given)

    return run


def with_studies(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """A command that reads ``studies`` and may leave files in them; any of them may be a URI."""

    @functools.wraps(command)
    def run(**given: Any) -> int | None:
        from bbam_ray.results.remote import address_of, open_study

        folders: list[Path] = []
        with ExitStack() as stack:
            for place in given["studies"]:
                if (uri := address_of(place)) is None:
                    folders.append(place)
                    continue
                storage, folder = open_study(uri)
                stack.enter_context(storage)
                folders.append(folder)
            return command(**{**given, "studies": folders})

    return run
