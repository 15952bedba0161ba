"""Each private name of Ray and Optuna works, and all of them are in one file."""

from __future__ import annotations

import ast
import gc
import inspect
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
from ray.exceptions import RayTaskError
from ray.tune import TuneError

from bbam_ray.scale import private_api

ROOT = Path(__file__).parents[2]
LIBRARIES = ("ray", "optuna")
#: Modules without an underscore that the libraries do not document.
INTERNAL = ("ray.autoscaler", "ray.experimental", "ray.train.torch.config")
#: Attributes of Tune's trials that Ray does not document.
TRIAL = {
    *("run_metadata", "get_pickled_error", "get_error", "temporary_state"),
    *("pickled_error_file", "error_file"),
}


def private_names(source: str) -> list[str]:
    """Lines that use private names of the libraries, as "line: what"."""
    found: list[tuple[int, str]] = []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                name = f"{module}.{alias.name}" if module else alias.name
                parts = name.split(".")
                hidden = any(part.startswith("_") for part in parts[1:])
                if parts[0] in LIBRARIES and (hidden or name.startswith(INTERNAL)):
                    found.append((node.lineno, name))
        elif isinstance(node, ast.Attribute):
            own = ast.unparse(node.value) in ("self", "cls", "other")
            hidden = node.attr.startswith("_") and not node.attr.startswith("__")
            if (hidden and not own) or node.attr in TRIAL:
                found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.keyword) and (node.arg or "").startswith("_"):
            found.append((node.value.lineno, f"{node.arg}="))
    return [f"{line}: {name}" for line, name in sorted(set(found))]


def uses_a_library(source: str) -> bool:
    nodes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom))
    return any(
        name.split(".")[0] in LIBRARIES
        for node in nodes
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    )


def test_no_other_file_uses_private_names() -> None:
    package = ROOT / "bbam_ray"
    for path in sorted(package.rglob("*.py")):
        source, name = path.read_text(encoding="utf-8"), path.relative_to(package).as_posix()
        if name != "scale/private_api.py" and (uses_a_library(source) or name.startswith("scale")):
            assert private_names(source) == [], name


@pytest.mark.parametrize(
    "line",
    [
        "from ray._private import ray_constants",
        "import ray.train._internal.utils",
        "from ray.train.torch.config import _TorchBackend",
        "from ray.experimental.internal_kv import internal_kv_get",
        "ray._private.state.state.get_cluster_config()",
        "study._storage.set_trial_intermediate_value(1, 2, 3)",
        "ray.init(_node_ip_address='127.0.0.1')",
        "trial.run_metadata.last_result = {}",
    ],
)
def test_the_reader_finds_private_names(line: str) -> None:
    assert private_names(line)
    assert not private_names("import ray, optuna\nray.init(address='local')\nself._study.ask()")


def test_the_reader_finds_those_of_the_one_file() -> None:
    assert len(private_names(inspect.getsource(private_api))) >= 10


# ---------------------------------------------------------------- one test for each name


def test_values_by_epoch_reach_an_added_trial() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for _ in range(2):
        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING))
    private_api.set_values_by_epoch(study, 1, {1: 0.5, 3: 0.25})
    assert [trial.intermediate_values for trial in study.trials] == [{}, {1: 0.5, 3: 0.25}]


def test_ray_init_takes_an_address_and_the_flag_is_restored() -> None:
    from ray._private import ray_constants, services

    before = ray_constants.ENABLE_RAY_CLUSTER
    with private_api.node_address_option("127.0.0.1") as options:
        assert ray_constants.ENABLE_RAY_CLUSTER is False
        # What makes Ray keep the loopback address.
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
        (name,) = options
        assert f'"{name}"' in inspect.getsource(ray.init)
    assert before == ray_constants.ENABLE_RAY_CLUSTER


def test_the_wait_for_the_dashboard_is_limited_and_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import ray_constants

    name = "RAY_DASHBOARD_STARTUP_TIMEOUT_S"
    monkeypatch.delenv(name, raising=False)
    before = ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S
    with private_api.dashboard_startup_limit(7):
        assert before != ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S == 7
    assert before == ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S
    monkeypatch.setenv(name, "90")
    with private_api.dashboard_startup_limit(7):
        assert before == ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S


def test_names_of_autoscaling_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import state
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental import internal_kv

    assert "fetch_from_server" in inspect.signature(is_autoscaler_v2).parameters
    answers: dict[str, bytes | None] = {DEBUG_AUTOSCALING_STATUS: None}
    assert callable(internal_kv._internal_kv_get)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", answers.__getitem__)
    assert private_api.autoscaler_node_types() is None
    report = b'{"autoscaler_report": {"node_type_mapping": {"10.0.0.1": "worker"}}}'
    answers[DEBUG_AUTOSCALING_STATUS] = report
    assert private_api.autoscaler_node_types() == {"10.0.0.1": "worker"}

    assert callable(state.state.get_cluster_config)
    group = SimpleNamespace(max_count=3, resources={"CPU": 4})
    for config, groups in (
        (None, []),
        (SimpleNamespace(node_group_configs=[group]), [(3, {"CPU": 4})]),
    ):
        monkeypatch.setattr(state.state, "get_cluster_config", lambda config=config: config)
        assert private_api.node_groups() == groups


def test_nodes_that_drain_are_read_from_the_state_of_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import state
    from ray.train.v2._internal.execution import preemption

    deadlines = {"a": 0, "b": 1_700_000_000_000}
    monkeypatch.setattr(state.state, "get_draining_nodes", lambda: deadlines)
    assert private_api.draining_nodes() == {"a", "b"}
    # Ray Train reads the same.
    assert preemption._get_draining_nodes() == deadlines


def test_names_of_ray_train_exist() -> None:
    backend = private_api.torch_backend()
    assert list(inspect.signature(backend.on_start).parameters)[1:] == [
        "worker_group",
        "backend_config",
    ]
    from ray.train._internal.utils import get_address_and_port
    from ray.train.torch.config import _set_torch_distributed_env_vars

    assert callable(get_address_and_port) and callable(_set_torch_distributed_env_vars)


def test_the_error_of_a_trial_is_read_before_tune_copies_it(tmp_path: Path) -> None:
    """As an exception, or as text where it was not pickled."""
    from ray.tune.experiment import Trial

    for error in (RayTaskError("f", "trace", ValueError("3"), ip="10.0.0.1"), TuneError("4")):
        trial: Any = Trial("__stub", stub=True)
        trial.storage = SimpleNamespace(trial_driver_staging_path=str(tmp_path))
        assert private_api.error_of(trial) is None
        trial.handle_error(error)
        read = private_api.error_of(trial)
        assert (
            isinstance(read.cause, ValueError) if isinstance(error, RayTaskError) else "4" in read
        )


def test_retries_of_a_trial_are_set() -> None:
    from ray.tune.experiment import Trial

    trial: Any = Trial("__stub", stub=True)
    trial.run_metadata.num_failures = 2
    assert not trial.should_recover()
    private_api.set_retries(trial, 2)
    assert trial.should_recover()
    private_api.set_retries(trial, 0)
    assert not trial.should_recover()


def test_tune_saves_no_state_and_does_not_look_for_it(tmp_path: Path) -> None:
    """Its files would meet a full disk, and its copies in the background the end of a short study."""
    from ray.tune.analysis import ExperimentAnalysis, experiment_analysis
    from ray.tune.execution import experiment_state
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    manager = experiment_state._ExperimentCheckpointManager
    trial: Any = Trial("__stub", stub=True, config={"number": 1})
    saved = []

    def snapshots() -> list[str]:
        syncer = SimpleNamespace(wait=lambda: None, sync_up=lambda source, target: True)
        storage: Any = SimpleNamespace(
            syncer=syncer,
            experiment_driver_staging_path=str(tmp_path),
            experiment_fs_path=str(tmp_path),
        )
        state = manager(storage=storage, checkpoint_period="auto")
        saved.clear()
        state.sync_up_experiment_state(lambda: saved.append("start"))
        state.sync_up_experiment_state(lambda: saved.append("end"), force=True, wait=True)
        return list(saved)

    def analysis() -> Any:
        return ExperimentAnalysis(str(tmp_path), trials=[trial])

    with pytest.raises(ValueError, match="No experiment snapshot"):
        analysis()
    find = experiment_analysis._find_newest_experiment_checkpoint
    assert snapshots() == ["start", "end"]
    with private_api.no_snapshots():
        assert snapshots() == []
        assert analysis().trials == [trial]
    assert snapshots() == ["start", "end"]
    assert experiment_analysis._find_newest_experiment_checkpoint is find
    assert "sync_up_experiment_state(" in inspect.getsource(TuneController.checkpoint)


def test_a_worker_notices_that_the_folder_of_its_run_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train.v2._internal.execution.context import StorageContext

    storage = StorageContext(str(tmp_path), "checkpoints")
    context = SimpleNamespace(get_storage=lambda: storage)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    assert private_api.storage_is_shared()
    (marker,) = (tmp_path / "checkpoints").iterdir()
    marker.unlink()  # as on a machine with a folder of the same name
    assert not private_api.storage_is_shared()


def test_workers_search_only_the_folders_that_the_job_names() -> None:
    """Ray adds the current folder and that of the script by extending the list."""
    from ray._private import worker

    config = private_api.job_config(["/package"])
    config._py_driver_sys_path.extend(["/current"])
    assert list(config._get_proto_job_config().py_driver_sys_path) == ["/package"]
    assert "job_config._py_driver_sys_path.extend(code_paths)" in inspect.getsource(worker.connect)


def test_messages_of_the_node_manager_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from ray._private import worker

    before = worker.print_to_stdstream
    message = {"lines": ["a worker died"], "pid": "raylet", "is_err": False}
    with private_api.quiet_node():
        worker.print_to_stdstream(message, ignore_prefix=False)
    assert capsys.readouterr().out == ""
    assert worker.print_to_stdstream is before
    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)


def test_a_notice_of_preemption_is_read_from_the_context_of_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.train.v2._internal.execution import context
    from ray.train.v2._internal.execution.preemption import PreemptionContext
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
    from ray.train.v2.api.preemption import PreemptionInfo

    worker: Any = SimpleNamespace(preemption_context=PreemptionContext())
    worker.get_world_rank = lambda: 0
    monkeypatch.setattr(context, "_train_context", worker)
    assert not private_api.preemption_noticed()
    info = PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"node": [1]})
    worker.preemption_context.preemption_info = info
    assert private_api.preemption_noticed()
    # What Ray's watcher calls on every worker, and what it writes.
    source = inspect.getsource(RayTrainWorker.mark_preempt)
    assert "train_context.preemption_context.preemption_info = info" in source


def test_failed_starts_of_ray_train_are_told_apart() -> None:
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import (
        WorkerGroupStartupFailedError,
        WorkerGroupStartupTimeoutError,
    )

    late, dead = (
        ControllerError(error)
        for error in (WorkerGroupStartupTimeoutError(2), WorkerGroupStartupFailedError("dead"))
    )
    tests = (private_api.timed_out_at_start, private_api.died_at_start)
    assert [[test(error) for test in tests] for error in (late, dead, ValueError())] == [
        [True, False],
        [False, True],
        [False, False],
    ]


def test_what_is_in_the_store_is_released_from_a_trial(tmp_path: Path) -> None:
    from ray.tune.experiment import Trial

    trial: Any = Trial("__stub", stub=True, config={"number": 1, "run": {"settings": {}}})
    trial.storage = SimpleNamespace(trial_driver_staging_path=str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    assert private_api.error_of(trial) is None
    trial.run_metadata.last_result = {"epoch": 3, "record": object(), "config": {"number": 1}}
    trial.run_metadata.metric_analysis["epoch"] = {"max": 3}
    trial.evaluated_params["parameters/scale"] = 20.0
    private_api.release_trial(trial)
    assert trial.run_metadata.last_result == {}
    assert trial.run_metadata.metric_analysis == trial.run_metadata.metric_n_steps == {}
    assert trial.config == trial._Trial__unresolved_config == {"number": 1}
    assert trial.evaluated_params == {}
    assert not (tmp_path / "t").exists()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "error.txt").write_text("why it failed")
    private_api.release_trial(trial)
    assert (tmp_path / "t" / "error.txt").exists()


def test_little_of_an_ended_trial_stays_in_memory() -> None:
    """Tune keeps all trials of an experiment; the store has what matters of those that have ended."""
    import numpy as np
    from ray.tune.experiment import Trial

    def size_of(count: int) -> float:
        gc.collect()
        tracemalloc.start()
        trials: list[Any] = []
        for number in range(count):
            settings = {f"setting {n}": float(n + number) for n in range(100)}
            trial: Any = Trial("__stub", stub=True, config={"number": number, "run": settings})
            trial.run_metadata.last_result = {"record": np.zeros(5000), "config": trial.config}
            for name in settings:
                trial.run_metadata.update_metric(name, 1.0)
            trial.storage = SimpleNamespace(trial_driver_staging_path="nothing")
            private_api.release_trial(trial)
            trials.append(trial)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(trials) == count
        return size / count

    assert size_of(200) < 5000  # bytes
