"""The trials of a search with several objectives that no other trial beats in all of them."""

from __future__ import annotations

from collections.abc import Iterable

from bbam_ray.results import schemas
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale.search.space import Space

Losses = tuple[float, ...]  # by objective; lower is better


class ParetoSet:
    """The Pareto set of a study as its trials end, and the column ``pareto`` of ``trials.parquet``.

    A new trial is compared with the members of the set only. With a single objective it does nothing.

    Args:
        store: of the study; the column of its trials is brought up to date.
        space: its objectives.
    """

    def __init__(self, store: StudyStore, space: Space) -> None:
        self._store, self._space = store, space
        self._members: dict[int, Losses] = {}
        self._is_used = len(space.objectives) > 1
        if self._is_used:
            rows = store.trials.rows()
            for row in rows:
                self._enter(row)
            store.trials.put(new for row in rows if (new := self.marked(row)) != row)

    def add(self, row: Row) -> Row:
        """Compare a trial that has ended; members that it beats are marked in the store.

        Returns:
            Its row, marked.
        """
        if self._is_used:
            for number in self._enter(row):
                self._store.trials.put(map(self.marked, self._store.trials.rows_of(number)))
        return self.marked(row)

    def marked(self, row: Row) -> Row:
        """The row of a trial with its column ``pareto`` as of now."""
        return row | {"pareto": row["number"] in self._members} if self._is_used else row

    def _enter(self, row: Row) -> list[int]:
        """Let a trial enter the set, if no member beats it; returns the members that had to leave."""
        losses = _losses(row, self._space)
        if losses is None or any(_dominates(other, losses) for other in self._members.values()):
            return []
        beaten = [number for number, other in self._members.items() if _dominates(losses, other)]
        for number in beaten:
            del self._members[number]
        self._members[row["number"]] = losses
        return beaten


def pareto(trials: Iterable[Row], space: Space) -> set[int]:
    """Numbers of the complete trials that no other complete trial beats."""
    complete = {row["number"]: losses for row in trials if (losses := _losses(row, space))}
    return {
        number
        for number, losses in complete.items()
        if not any(_dominates(other, losses) for other in complete.values())
    }


def _losses(row: Row, space: Space) -> Losses | None:
    """The objectives of a trial, turned so that lower is better; None if it is not complete."""
    if row["state"] != schemas.COMPLETE or any(row.get(n) is None for n, _ in space.objectives):
        return None
    return tuple(-row[name] if mode == "max" else row[name] for name, mode in space.objectives)


def _dominates(one: Losses, other: Losses) -> bool:
    """Whether a trial is at least as good in every objective and better in one."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
