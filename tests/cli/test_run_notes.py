"""Notes of a run that depend on where it runs."""

from __future__ import annotations

from bbam_ray.commands.run_notes import concurrency_note


def test_a_cluster_of_which_a_part_is_used_is_mentioned() -> None:
    note = concurrency_note(1, None, "auto")
    assert note is not None and "1 trial at once" in note and "--max-concurrent" in note
    note = concurrency_note(4, None, "ray://head:10001")
    assert note is not None and "4 trials at once" in note


def test_nothing_is_said_on_one_machine_or_if_the_user_has_decided() -> None:
    assert concurrency_note(1, None, "local") is None
    assert concurrency_note(1, 1, "auto") is None
