"""Connecting to Ray: a private instance on this machine, or a cluster that runs already."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

# Read when Ray or Tune starts; a user's own settings win.
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # as fast as plain python; the default of 15 starves beside anything
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is ours: Tune's own handler would wait for the running epochs.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def connected(
    address: str, *, cpus: int | None = None, dashboard: bool = True
) -> Iterator[str | None]:
    """Use Ray while the block runs, and leave no process of ours behind.

    Args:
        address: "local" starts Ray here and stops it at the end; "auto" or "ray://host:port" joins
            a cluster and leaves it running.
        cpus: number of CPUs of a local instance; default all.
        dashboard: whether a local instance serves its dashboard (on the loopback address only).

    Yields:
        The dashboard's address, if there is one.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    common = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == "local":
        context = ray.init(
            address="local",
            num_cpus=cpus or os.cpu_count(),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            **common,
        )
    else:
        context = ray.init(address=address, **common)
    try:
        yield getattr(context, "dashboard_url", None)
    finally:
        ray.shutdown()
