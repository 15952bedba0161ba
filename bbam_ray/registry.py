"""Named parts of the library that are imported when they are used, so that a command starts fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Names and what they stand for; the names alone (``list(registry)``) import nothing.

    Args:
        entries: name to ``"module:attribute"``; an attribute that ends in ``()`` is called once.
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._addresses = dict(entries)
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            module, _, attribute = self._addresses[name].partition(":")
            value = getattr(import_module(module), attribute.removesuffix("()"))
            self._loaded[name] = value() if attribute.endswith("()") else value
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def add(self, name: str, entry: T) -> None:
        """Add an entry of your own, for this process.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._addresses:
            raise ValueError(f"'{name}' is registered already; choose another name")
        self._addresses[name] = f"{type(entry).__module__}:{name}"
        self._loaded[name] = entry
