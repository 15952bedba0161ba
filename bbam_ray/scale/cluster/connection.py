"""Connecting to Ray: a private instance on this machine, or a running cluster."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import bbam_ray
from bbam_ray.errors import RayStartError, UsageError
from bbam_ray.files import check_free
from bbam_ray.scale import private_api
from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.cluster.loopback import ADDRESS, only_loopback
from bbam_ray.scale.cluster.scratch import LOG_BYTES, LOG_FILES, kept_session
from bbam_ray.scale.cluster.session_logs import pruned_logs

# Read when Ray or Tune starts; a user's own settings take precedence.
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # the default of 15 leaves workers no CPU time next to other programs
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative --data-dir means the same folder in every process
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ray rotates its log files, so that a study does not fill the disk with them.
    "RAY_ROTATION_MAX_BYTES": str(LOG_BYTES),
    "RAY_ROTATION_BACKUP_COUNT": str(LOG_FILES),
    # We handle Ctrl-C: Tune's own handler would wait for the running epochs.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
    # Ray imports trackers to count their users; without these they would send telemetry.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


# In the message of Ray, whose error has no class of its own.
_START_TIMEOUT = "timed out during startup"
_DASHBOARD_S = 30  # it takes 2 to 8 s to start
# A resource that drivers of trials hold, not CPUs, so that they never take those of workers.
TRIAL_SLOT = "trial_slot"
# Ray cannot start on a full disk. Its folder has 2 MB of logs and sockets then, and grows slowly.
_SESSION_BYTES = 50_000_000


@contextmanager
def connected(
    address: str,
    *,
    dashboard: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str | None]:
    """Use Ray while the block runs, and leave no process of it behind.

    Args:
        address: "local" starts Ray here and stops it at the end; "auto" or "ray://host:port" joins
            a cluster and leaves it running.
        dashboard: whether a local instance serves its dashboard (on the loopback address only).
        environment: further environment variables for Ray; a user's own settings take precedence.

    Yields:
        The dashboard's address; None without one, also if it could not start.
    """
    with interruption.listening(), private_api.quiet_node():
        yield from _connected(address, dashboard, {**_SETTINGS, **(environment or {})})


def _connected(
    address: str, dashboard: bool, environment: Mapping[str, str]
) -> Iterator[str | None]:
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Tune prints a traceback for each failure of a trial; the study has a sentence for it.
    for name in ("ray.tune.execution.tune_controller", "ray.tune.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if not address.startswith("ray://"):  # the driver of a client is a process of the cluster
        common["job_config"] = private_api.job_config(package_folder())
    if address == "local":
        advice = "free some space, or set RAY_TMPDIR to a folder on another disk"
        check_free(Path(_temporary()), _SESSION_BYTES, "Ray's temporary folder", advice)
        limit = private_api.dashboard_startup_limit(_DASHBOARD_S)
        with only_loopback() as loopback, limit:
            try:
                context = ray.init(
                    address="local",
                    num_cpus=os.cpu_count(),
                    resources={TRIAL_SLOT: 1000},
                    # None: Ray runs without it if it cannot start; True would end with its error.
                    include_dashboard=None if dashboard else False,
                    dashboard_host=ADDRESS,
                    **loopback,
                    **common,
                )
            except OSError as error:
                if "AF_UNIX path length" not in str(error):
                    raise
                raise UsageError(
                    f"Ray's temporary folder {_temporary()} is a path too long for its sockets; set "
                    "RAY_TMPDIR to a shorter one"
                ) from None
            except Exception as error:
                if _START_TIMEOUT not in str(error):
                    raise
                raise RayStartError(
                    "Ray did not start within its limit of 30 s, probably because other programs use the "
                    "CPUs of this machine; nothing was trained, so run the command again"
                ) from None
    else:
        try:
            context = ray.init(address=address, **common)
        except ConnectionError as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"--address {address}: cannot connect to a Ray cluster ({reason}); start one, or use "
                "--address local"
            ) from None
    interruption.listen()  # Ray has replaced the handler of SIGTERM
    with ExitStack() as stack:
        if address == "local":
            session = Path(context.address_info["session_dir"])
            stack.enter_context(kept_session(session))
            stack.enter_context(pruned_logs(session))
        stack.callback(ray.shutdown)
        interruption.check()
        yield getattr(context, "dashboard_url", None) or None


def package_folder() -> list[str]:
    """The folder with this package, if it is only found because it is the script's or the current one.

    An installed package, or one on PYTHONPATH, is found by workers themselves.
    """
    folder = Path(bbam_ray.__file__).resolve().parents[1]
    first, *further = (Path(entry).resolve() for entry in sys.path)
    by_script = not sys.flags.safe_path and first == folder
    return [str(folder)] if by_script and folder not in further else []


def _temporary() -> str:
    """The folder in which Ray creates its own."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def driver_resources() -> dict[str, float]:
    """Resources of the driver of a trial under Ray Train: a slot, if the cluster has slots."""
    if TRIAL_SLOT in ray.cluster_resources():
        return {TRIAL_SLOT: 1.0}
    return {"CPU": 0.001}


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """A strategy that starts an actor on the driver's node: on another it could be lost alone."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
