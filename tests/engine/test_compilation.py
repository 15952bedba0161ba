"""The setting ``compile``: which path the network takes, when, and that its results do not change."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trees import features

from bbam_ray.engine.compilation import Compilation, StepPosition, pays
from bbam_ray.engine.compile_records import Gain, GainRecords
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.models import build_network
from bbam_ray.models.fast_paths import CapturedPath, CompiledPath, FastPath
from bbam_ray.models.network import Network

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile on a CPU needs g++"
)


@pytest.fixture(autouse=True)
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of this test alone; the tests share the compiler's cache."""
    monkeypatch.setattr(GainRecords, "folder", staticmethod(lambda: tmp_path / "records"))
    monkeypatch.setattr(GainRecords, "_compiled", set())
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)


class Graph(CapturedPath):
    """A captured path that computes as the plain one does, since there are no CUDA graphs on a CPU."""

    def __init__(self, network: Network, shape: tuple[int, ...]) -> None:
        self._shape, self._parameter = torch.Size(shape), next(network.parameters())
        self._is_first, self._graphed = True, network.encode
        self.calls = 0

    def features(self, network: Any, inputs: Tensor) -> Tensor:
        self.calls += 1
        return super().features(network, inputs)


class Compiled(CompiledPath):
    """A compiled path that compiles nothing, or fails to."""

    will_fail = False

    def features(self, network: Any, inputs: Tensor) -> Tensor:
        self.failure = RuntimeError("no compiler") if self.will_fail else None
        self.ready.add(True)
        features: Tensor = network.encode(inputs)
        return features


class Machine:
    """Steps of a small network whose path decides how long a step takes, on a clock of its own.

    Args:
        eager, graph, compiled: seconds of a step; None = the path fails.
        compiling: seconds.
    """

    def __init__(
        self,
        eager: float,
        graph: float | None = None,
        compiled: float | None = None,
        compiling: float = 30.0,
    ) -> None:
        self.now, self.seconds = 0.0, {"eager": eager, "graph": graph, "compiled": compiled}
        self.compiling = compiling
        self.network = build_network("mlp", (6,), 3, hidden_dim=8, feature_dim=4)
        self.averaged = copy.deepcopy(self.network).eval()

    def choose(self, setting: Any, **changes: Any) -> Compilation:
        options: dict[str, Any] = {
            "compiled": lambda shape: (self._compiled(shape), None),
            "captured": self._captured,
            "records": lambda shape: GainRecords([shape], CPU),
            "clock": lambda: self.now,
        }
        return Compilation(setting, (self.network, self.averaged), **{**options, **changes})

    def _captured(self, shape: tuple[int, ...]) -> CapturedPath:
        if self.seconds["graph"] is None:
            raise RuntimeError("operation not permitted when stream is capturing")
        return Graph(self.network, shape)

    def _compiled(self, shape: tuple[int, ...] | None) -> CompiledPath:
        assert shape == (5, 6)
        path = Compiled(self.network, shape)
        path.seconds = self.compiling
        path.will_fail = self.seconds["compiled"] is None
        return path

    @property
    def path(self) -> str:
        path = self.network.fast_path
        if isinstance(path, CapturedPath):
            return "graph"
        return "compiled" if isinstance(path, CompiledPath) else "eager"

    def train(self, compilation: Compilation, epochs: int, steps: int) -> list[str]:
        """Take the steps; the path of each."""
        paths, self.network.training = [], True
        left = epochs * steps
        for _ in range(epochs):
            for number in range(steps):
                compilation.start_step(StepPosition(number, steps, left))
                self.network(torch.zeros(5 if number < steps - 1 else 2, 6))
                paths.append(self.path)
                self.now += self.seconds[self.path] or 0.0
                left -= 1
            self.now += 1000.0  # a refresh, which is not part of any step
        return paths


def test_compiling_pays_if_the_steps_left_save_more_than_it_takes() -> None:
    gain = Gain(seconds=48.0, saving=0.29)
    assert pays(0.055, 10_000, gain)  # 160 s saved
    assert not pays(0.055, 4_000, gain)  # 64 s: not clearly more than 48
    assert not pays(0.055, 1_000_000, Gain(48.0, 0.0))
    assert not pays(0.055, 1_000_000, Gain(0.0, -0.1))
    assert pays(0.055, 1, Gain(0.0, 0.29))  # compiled by this process already


def test_long_steps_are_compiled_if_many_are_left_and_the_gain_is_recorded() -> None:
    machine = Machine(eager=0.055, graph=0.05, compiled=0.04)
    paths = machine.train(machine.choose("auto"), 40, 300)
    first = paths.index("compiled")
    assert set(paths[:first]) == {"eager"} and set(paths[first:]) == {"compiled"}
    assert first < 30
    gain = GainRecords([torch.Size([5, 6])], CPU).read()
    assert gain is not None and gain.saving == pytest.approx(1 - 0.04 / 0.055)
    assert gain.seconds == 0.0  # in this process it is compiled
    GainRecords._compiled.clear()
    gain = GainRecords([torch.Size([5, 6])], CPU).read()
    assert gain is not None and gain.seconds == pytest.approx(30)


def test_few_steps_are_not_compiled_unless_that_is_done_already() -> None:
    machine = Machine(eager=0.055, compiled=0.04)
    assert set(machine.train(machine.choose("auto"), 3, 100)) == {"eager"}
    records = GainRecords([torch.Size([5, 6])], CPU)
    records.write(Gain(30.0, 0.27))
    assert "compiled" in machine.train(machine.choose("auto"), 3, 100)  # a second trial
    records.write(Gain(30.0, 0.0))  # it did not pay here
    assert set(machine.train(machine.choose("auto"), 40, 100)) == {"eager"}


def test_short_steps_become_a_graph_which_is_dropped_if_it_is_not_faster() -> None:
    machine = Machine(eager=0.007, graph=0.002)
    paths = machine.train(machine.choose("auto"), 3, 100)
    assert paths.index("graph") < 30 and paths[-1] == "graph"
    machine = Machine(eager=0.007, graph=0.007)
    paths = machine.train(machine.choose("auto"), 3, 100)
    assert "graph" in paths and paths[-1] == "eager"
    machine = Machine(eager=0.007, graph=None)  # the capture fails
    assert set(machine.train(machine.choose("auto"), 3, 100)) == {"eager"}


@pytest.mark.parametrize("compiled", [None, 0.06], ids=["fails", "slower"])
def test_compiling_that_fails_or_does_not_pay_is_dropped_and_not_tried_again(
    compiled: float | None,
) -> None:
    machine = Machine(eager=0.055, compiled=compiled)
    paths = machine.train(machine.choose("auto"), 40, 300)
    assert paths[-1] == "eager" and 1 <= paths.count("compiled") < 30
    GainRecords._compiled.clear()
    assert set(machine.train(machine.choose("auto"), 40, 300)) == {"eager"}


def test_steps_are_timed_within_one_epoch_and_never_in_epochs_of_few_steps() -> None:
    machine = Machine(eager=0.55, compiled=0.4)
    assert set(machine.train(machine.choose("auto"), 300, 7)) == {"eager"}
    paths = machine.train(machine.choose("auto"), 300, 12)
    assert paths.index("compiled") == 11  # timed from step 3 to the last one of the first epoch


def test_true_compiles_at_once_or_raises_and_false_never() -> None:
    machine = Machine(eager=1.0, graph=0.1, compiled=0.1)
    assert machine.train(machine.choose("true"), 1, 5) == ["eager", *["compiled"] * 4]
    assert set(machine.train(machine.choose("false"), 40, 300)) == {"eager"}
    machine = Machine(eager=1.0, compiled=None)
    with pytest.raises(UsageError, match=r"no compiler.*compile=false"):
        machine.train(machine.choose("true"), 1, 5)


def test_a_record_that_cannot_be_read_or_written_ends_nothing(tmp_path: Path) -> None:
    records = GainRecords(["x"], CPU)
    records.write(Gain(1.0, 0.5))
    (file,) = GainRecords.folder().glob("*.json")
    for text in ("", "{", '{"seconds": 1}', "[]", '{"a": 1}'):
        file.write_text(text, encoding="utf-8")
        assert GainRecords(["x"], CPU).read() in (None, Gain(0.0, 0.29))
    (tmp_path / "file").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GainRecords, "folder", staticmethod(lambda: tmp_path / "file" / "below"))
        GainRecords(["x"], CPU).write(Gain(1.0, 0.5))


def test_a_graph_computes_the_first_forward_pass_of_a_step_only() -> None:
    network = build_network("mlp", (6,), 3, hidden_dim=8, feature_dim=4).train()
    path = network.fast_path = Graph(network, (5, 6))
    path.start_step()
    network(torch.zeros(4, 6))  # another shape
    network(torch.zeros(5, 6))
    network(torch.zeros(5, 6))  # its buffers are in use until the backward pass
    with torch.no_grad():
        network(torch.zeros(5, 6))
    assert path.calls == 1
    path.start_step()
    moved = {name: p * 2 for name, p in network.named_parameters()}
    torch.func.functional_call(network, moved, (torch.zeros(5, 6),))  # not the captured weights
    assert path.calls == 1
    network.eval()
    network(torch.zeros(5, 6))
    assert path.calls == 1


def test_a_frozen_backbone_does_not_hide_that_the_weights_are_others() -> None:
    network = build_network("mlp", (6,), 3, hidden_dim=8, feature_dim=4).train()
    network.freeze_backbone()
    path = CompiledPath(network, (5, 6))
    assert path.accepts(network, torch.zeros(5, 6))
    trained = {name: p * 2 for name, p in network.named_parameters() if p.requires_grad}
    network.fast_path = path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledPath, "features", lambda *_: pytest.fail("compiled weights used"))
        torch.func.functional_call(network, trained, (torch.zeros(5, 6),))


def test_a_copy_of_a_network_does_not_share_its_path() -> None:
    network = build_network("mlp", (6,), 3, hidden_dim=8, feature_dim=4)
    names = list(network.state_dict())
    network.fast_path = CompiledPath(network, (5, 6))
    assert copy.deepcopy(network).fast_path is None
    assert list(network.state_dict()) == names
    assert isinstance(network.fast_path, FastPath)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Feature vectors with labels, since linear layers compile quickly."""
    return features(tmp_path_factory.mktemp("features"), 900)


def make_trainer(data_dir: Path, **changes: Any) -> Trainer:
    settings = {"dataset": "features", "data_dir": data_dir, "labeled_fraction": 0.3}
    settings |= {"epochs": 2, "warmup_epochs": 1, "warmup_passes": 3, "device": "cpu"}
    settings |= {"backbone": "identity", "hidden_dim": 16, "feature_dim": 8, "labeled_batch": 8}
    settings |= {"unlabeled_batch": 8}
    config = run_config({**settings, **changes}, "test")
    return Trainer(config, *prepare_training(config))


def trained(data_dir: Path, **changes: Any) -> tuple[Trainer, list[dict[str, Any]]]:
    """A trainer after its last epoch, and the history."""
    trainer, history = make_trainer(data_dir, **changes), []
    while not trainer.finished:
        history.append(trainer.run_epoch().scalars)
    return trainer, history


def test_auto_never_compiles_on_a_cpu(data_dir: Path) -> None:
    trainer, history = trained(data_dir, compile="auto")
    assert all(row["compiled"] == row["seconds_compile"] == 0 for row in history)
    assert trainer.model.fast_path is None


@needs_compiler
def test_a_compiled_run_is_that_of_the_plain_path_and_a_second_one_compiles_nothing(
    data_dir: Path,
) -> None:
    import torch._dynamo.utils as dynamo

    plain, _ = trained(data_dir, compile=False)
    graphs: list[int] = []
    for _ in range(2):
        before = dynamo.counters["stats"]["unique_graphs"]
        trainer, history = trained(data_dir, compile=True)
        graphs.append(dynamo.counters["stats"]["unique_graphs"] - before)
        assert all(row["compiled"] > 0.5 for row in history)
        assert history[0]["seconds_compile"] > 0
        for expected, module in zip(both(plain), both(trainer), strict=True):
            for name, tensor in expected.items():
                torch.testing.assert_close(module[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert graphs[0] > 0 and graphs[1] == 0


def both(trainer: Trainer) -> list[dict[str, Tensor]]:
    modules: list[nn.Module] = [trainer.model, trainer.average.module]
    return [module.state_dict() for module in modules]
