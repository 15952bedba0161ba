"""Log files of Ray's processes that have ended: the newest stay, however long a study runs.

Ray starts and ends processes all the time, and each leaves three files. Files of running processes are
limited by their rotation, see ``connection``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEPT_PROCESSES = 100
_SECONDS = 60.0
# python-core-worker-<id>_<pid>.log, worker-<id>-<job>-<pid>.out and .err, and their rotated versions
_NAME = re.compile(r"(?:python-core-)?worker-[0-9a-f]+[-_](?:[0-9a-f]+-)?(\d+)\.(?:\w+\.)*\w+")


@contextmanager
def pruned_logs(session: Path) -> Iterator[None]:
    """Remove old log files of ended processes from a session folder of Ray while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_SECONDS):
            prune(session / "logs")

    thread = threading.Thread(target=run, name="old logs of Ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def prune(logs: Path, keep: int = KEPT_PROCESSES) -> None:
    """Remove log files of processes that have ended.

    Args:
        logs: a folder.
        keep: how many of these processes keep their files: those that wrote last.
    """
    by_process: dict[str, list[Path]] = {}
    last: dict[str, float] = {}
    for path in logs.glob("*worker-*"):
        if (match := _NAME.fullmatch(path.name)) and not Path("/proc", match[1]).exists():
            with suppress(FileNotFoundError):
                last[match[1]] = max(last.get(match[1], 0.0), path.stat().st_mtime)
                by_process.setdefault(match[1], []).append(path)
    for process in sorted(last, key=lambda each: last[each], reverse=True)[keep:]:
        for path in by_process[process]:
            path.unlink(missing_ok=True)
