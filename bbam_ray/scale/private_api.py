"""Every private name of Ray and Optuna that this project uses, so that an upgrade fails in one place.

``tests/scale/test_private_api.py`` has a test for each, and one that no other file uses private names.
Imports are inside the functions: a dry run loads Optuna, and no Ray.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


# ---------------------------------------------------------------- Optuna


def set_values_by_epoch(study: optuna.Study, number: int, values: Mapping[int, float]) -> None:
    """Set the intermediate values of a running trial, by its number.

    Optuna's public ``Trial.report`` needs the object that ``ask`` has returned, which a trial that was
    added to the study does not have.
    """
    storage = study._storage
    trial = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    for epoch, value in values.items():
        storage.set_trial_intermediate_value(trial, epoch, value)


# ---------------------------------------------------------------- Ray: starting a private instance


@contextmanager
def node_address_option(address: str) -> Iterator[dict[str, Any]]:
    """The option of ``ray.init`` with which a private Ray listens on one address.

    Ray keeps "127.0.0.1" as the address of its node only if it expects no other nodes; otherwise it
    replaces it by the machine's address in its network, and opens every port there. The option works
    inside the block only.
    """
    from ray._private import ray_constants

    expects_other_nodes = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield {"_node_ip_address": address}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = expects_other_nodes


@contextmanager
def dashboard_startup_limit(seconds: int) -> Iterator[None]:
    """Ray waits at most this long for its dashboard, unless the user's environment says otherwise.

    Its environment variable is read when Ray is imported. Ray's own lines about the failure are left out.
    """
    from ray._private import ray_constants

    name = "RAY_DASHBOARD_STARTUP_TIMEOUT_S"
    before, logger = getattr(ray_constants, name), logging.getLogger("ray._private.services")
    disabled = logger.disabled
    if name not in os.environ:
        setattr(ray_constants, name, seconds)
    logger.disabled = True
    try:
        yield
    finally:
        setattr(ray_constants, name, before)
        logger.disabled = disabled


class _FixedList(list[str]):
    """A list that Ray cannot extend."""

    def extend(self, values: Iterable[str]) -> None:
        """Ignore the values."""


def job_config(folders: list[str]) -> Any:
    """Options of a job whose workers search modules in some folders first, then where Python does.

    By default Ray puts the current folder and that of the script before all others. A file there with the
    name of a module of Python would then replace it in every worker.
    """
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _FixedList(folders)
    return config


@contextmanager
def quiet_node() -> Iterator[None]:
    """Keep messages of Ray's node manager from standard output; they are in its log files as well.

    It prints a traceback for each process that dies, next to the error that the driver gets.
    """
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *args, **options: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


# ---------------------------------------------------------------- Ray: autoscaling


def autoscaler_is_v2() -> bool:
    """Whether the connected cluster runs Ray's second autoscaler."""
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return bool(is_autoscaler_v2(fetch_from_server=True))


def autoscaler_node_types() -> dict[str, Any] | None:
    """Node types by node as the cluster's monitor reports them; None before its first report."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.experimental.internal_kv import _internal_kv_get

    status = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    if not status:
        return None
    return json.loads(status)["autoscaler_report"]["node_type_mapping"] or {}


def node_groups() -> list[tuple[int, dict[str, float]]]:
    """Groups of nodes that an autoscaler may add: most nodes (-1 = no limit), resources of a node."""
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [(group.max_count, dict(group.resources)) for group in groups]


def draining_nodes() -> set[str]:
    """IDs of nodes that are about to be taken away; Ray starts nothing more on them."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


# ---------------------------------------------------------------- Ray Train


def torch_backend() -> Any:
    """The class with which Ray Train starts and ends torch on its workers."""
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


def address_and_port() -> tuple[str, int]:
    """Address and a free port of the machine of the worker that calls this."""
    from ray.train._internal.utils import get_address_and_port

    host, port = get_address_and_port()
    return str(host), int(port)


def set_torch_environment() -> None:
    """Set RANK, WORLD_SIZE and similar variables in this worker, from Ray Train's session."""
    from ray.train.torch.config import _set_torch_distributed_env_vars

    _set_torch_distributed_env_vars()


def preemption_noticed() -> bool:
    """Whether a node of this run is about to be taken away, as this worker of Ray Train knows it.

    The public function is a message between all workers, too much for every step.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def storage_is_shared() -> bool:
    """Whether this worker of Ray Train sees the folder of its run; false if that is on another machine.

    By default Ray checks this with each checkpoint that a worker reports.
    """
    import ray.train

    try:
        ray.train.get_context().get_storage()._check_validation_file()
    except RuntimeError:
        return False
    return True


def timed_out_at_start(error: Any) -> bool:
    """Whether a run of Ray Train has failed since the resources of its workers were not free in time."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError)


def died_at_start(error: Any) -> bool:
    """Whether a run of Ray Train has failed since processes of workers died while they started."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

    return isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupFailedError)


# ---------------------------------------------------------------- Ray Tune


@contextmanager
def no_snapshots() -> Iterator[None]:
    """Tune does not save the state of an experiment while the block runs.

    A study resumes from its own store. By default Tune copies its files in the background, where the end
    of a study may replace them meanwhile, and an experiment without a snapshot, as on a full disk, ends
    with an error although all of its trials have ended.
    """
    from ray.tune.analysis import experiment_analysis
    from ray.tune.execution.experiment_state import _ExperimentCheckpointManager as Manager

    save, find = Manager.sync_up_experiment_state, "_find_newest_experiment_checkpoint"
    find_newest = getattr(experiment_analysis, find)

    def skip(
        self: Any, save_fn: Callable[[], None], force: bool = False, wait: bool = False
    ) -> None:
        """Save nothing."""

    Manager.sync_up_experiment_state = skip
    # Tune's result object gets the trials from memory. It looks whether the file exists, and reads it
    # only if there are no trials, as in a search that reuses all of them.
    setattr(experiment_analysis, find, lambda **options: "none")
    Analysis = experiment_analysis.ExperimentAnalysis
    load, Analysis._load_trials = Analysis._load_trials, lambda self: []
    try:
        yield
    finally:
        Manager.sync_up_experiment_state = save
        Analysis._load_trials = load
        setattr(experiment_analysis, find, find_newest)


def error_of(trial: Any) -> Any:
    """The exception that ended a trial of Tune, or its text, or None.

    Tune's public methods read copies of these files, which are written later.
    """
    if trial.storage is None:
        return None
    for name, read in ((trial.pickled_error_file, pickle.loads), (trial.error_file, bytes.decode)):
        if name and (file := Path(name)).is_file():
            return read(file.read_bytes())
    return None


def set_retries(trial: Any, count: int) -> None:
    """How often Tune starts a trial again after failures, all of its failures counted; -1 = always."""
    trial.max_failures = count


def release_trial(trial: Any) -> None:
    """Free what Tune keeps of an ended trial, memory and a folder: the store has its results."""
    metadata = trial.run_metadata
    metadata.last_result, metadata.metric_analysis, metadata.metric_n_steps = {}, {}, {}
    # The unresolved configuration is a second reference, for a restore that this project does not use.
    trial.config = trial._Trial__unresolved_config = {"number": trial.config["number"]}
    trial.evaluated_params, trial.experiment_tag, trial.stopping_criterion = {}, "", {}
    with suppress(OSError):  # it holds the error of a trial that failed
        Path(trial.local_path).rmdir()
