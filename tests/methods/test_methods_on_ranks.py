"""Every method on two ranks of a real gloo group gives the result of one process, and resumes there."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from bbam_ray.data.sampling.sharding import main_phase_shares
from bbam_ray.methods import METHODS
from bbam_ray.methods.fitted import FittedMethod

SCRIPT = Path(__file__).with_name("rank_methods.py")
SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "seed": 7,
    "scenes": 120,
    "test_scenes": 40,
    "labeled_fraction": 0.875,
    "validation_fraction": 0.8,
    "epochs": 3,
    "warmup_epochs": 1,
    "warmup_passes": 1,
    "warmup_learning_rate": 5e-3,
    "learning_rate": 4e-3,
    "hidden_dim": 16,
    "feature_dim": 8,
    "device": "cpu",
}
# So small that a rank has no labelled, or no unlabelled, sample in some steps.
SMALL = {"labeled_batch": 3, "unlabeled_batch": 3}
OWN = {
    # Balancing divides by the deviations of a few angles: batches of 3 bring rounding to the tolerance.
    "bbam": {"labeled_batch": 8, "unlabeled_batch": 8},
    "drml": {"agreement": 0.25},  # about half of the samples agree by then
}
# Methods that are fitted, not trained by steps, are in test_fitted_methods.py.
RUNS = {
    name: SETTINGS | {"method": name} | SMALL | OWN.get(name, {})
    for name, method in METHODS.items()
    if not issubclass(method, FittedMethod)
}
RUNS["bbam with weights"] = RUNS["bbam"] | {
    "pseudo_labels": "metric",
    "pseudo_label_weight": "measured",
}
PROTOCOL = {
    "cycle_epochs": 3,
    "cycle_momentum": True,
    "warmup_views": "both",
    "warmup_batch": 5,
    "ema_warmup": False,
    "ema_decay": 0.9,
    "keep": "last",
    "shuffle": False,
}
RUNS["bbam as published"] = RUNS["bbam"] | PROTOCOL | {"ema_restart": "trained"}
RUNS["bbam as published"] |= {"labeled_negatives": "first", "negative_ratio": 1.0}
RUNS["cap as published"] = RUNS["cap"] | PROTOCOL | {"ema_restart": "averaged"}
# Near the kink of a ReLU, rounding decides about a unit. These seeds stay away from kinks; see the test
# of small changes.
SEEDS = {"cap": 18, "mime": 19, "drml": 28, "dicap": 17, "bbam as published": 18}
for name, seed in SEEDS.items():
    RUNS[name]["seed"] = seed
TRAINED = list(RUNS)
WARMUP, MAIN, LAST = 1, 2, 3
SEMI_SUPERVISED = [name for name, run in RUNS.items() if METHODS[run["method"]].semi_supervised]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The worker script as a module, to run the same code in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parents[1]))
        spec = importlib.util.spec_from_file_location("rank_methods", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def two(gloo_group: Callable, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The results of each of two ranks, for every method in one session."""
    folder = tmp_path_factory.mktemp("methods")
    (folder / "settings.json").write_text(json.dumps(RUNS), encoding="utf-8")
    ranks: list[Any] = gloo_group(SCRIPT, 2, folder)
    return ranks


@pytest.fixture(scope="module")
def one(script: ModuleType) -> dict[str, Any]:
    return {name: script.train(script.make_trainer(settings)) for name, settings in RUNS.items()}


def parameters(epoch: dict[str, Any]) -> Tensor:
    """All weights after an epoch, without batch norm's buffers, which are larger."""
    state = epoch["state"]["model"].items()
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return torch.cat([t.double().flatten() for name, t in state if not name.endswith(buffers)])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def by_sample(epochs: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Pseudo-labels of all ranks in the order of the unlabelled pool."""
    index = torch.cat([epoch["samples"]["unlabeled"]["index"] for epoch in epochs])
    order = index.argsort()
    assert torch.equal(index[order], torch.arange(len(index)))
    names = epochs[0]["pseudo"]
    return {n: torch.cat([epoch["pseudo"][n] for epoch in epochs])[order] for n in names}


@pytest.mark.parametrize("method", TRAINED)
def test_a_small_change_of_the_weights_stays_small(
    method: str, one: dict[str, Any], script: ModuleType
) -> None:
    """Else the tests below would compare by luck of the processor's rounding."""
    trainer = script.make_trainer(RUNS[method])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter *= 1 + 2e-6 * (2 * torch.rand(parameter.shape, generator=generator) - 1)
    trainer.average.module.load_state_dict(trainer.model.state_dict())
    for epoch, changed in script.train(trainer).items():
        assert distance(parameters(changed), parameters(one[method][epoch])) < 5e-5


@pytest.mark.parametrize("method", TRAINED)
def test_parameters_are_those_of_one_process(
    method: str, two: list[Any], one: dict[str, Any]
) -> None:
    for epoch in (WARMUP, MAIN, LAST):
        expected = one[method][epoch]
        first = parameters(two[0][method][epoch])
        assert distance(first, parameters(expected)) < 1e-4
        assert torch.equal(parameters(two[1][method][epoch]), first)
        for name, value in expected["losses"].items():
            found = two[0][method][epoch]["losses"][name]
            assert found == (None if value is None else pytest.approx(value, rel=1e-3))
    before, after = (parameters(one[method][epoch]) for epoch in (MAIN, LAST))
    assert (
        distance(before, after) > 5e-3
    )  # the agreement is not that of a run whose weights hardly change


@pytest.mark.parametrize("method", TRAINED)
def test_the_state_of_a_method_is_the_same_on_both_ranks(
    method: str, two: list[Any], one: dict[str, Any], identical: Callable
) -> None:
    for epoch in (WARMUP, MAIN, LAST):
        states = [found[method][epoch]["state"]["method"] for found in two]
        assert identical(*states)
        assert states[0].keys() == one[method][epoch]["state"]["method"].keys()


@pytest.mark.parametrize("method", SEMI_SUPERVISED)
def test_pseudo_labels_are_those_of_one_process(
    method: str, two: list[Any], one: dict[str, Any], identical: Callable
) -> None:
    for epoch in (MAIN, LAST):
        found = by_sample([ranks[method][epoch] for ranks in two])
        assert identical(found, by_sample([one[method][epoch]]))
    assert any(0 < int(t.sum()) < t.numel() for t in found.values())  # something to compare


@pytest.mark.parametrize("method", SEMI_SUPERVISED)
def test_a_run_of_two_ranks_resumes_in_one_process(
    method: str, two: list[Any], one: dict[str, Any], script: ModuleType, identical: Callable
) -> None:
    trainer = script.make_trainer(RUNS[method])
    trainer.load_state_dict(two[0][method][MAIN]["state"])
    trainer.load_sample_state([found[method][MAIN]["samples"] for found in two])
    resumed, expected = trainer.sample_state(), copy.deepcopy(one[method][MAIN]["samples"])
    weights = [state["unlabeled"].pop("weight", torch.zeros(0)) for state in (resumed, expected)]
    assert torch.allclose(*weights, atol=1e-4)  # they follow from scores, which are rounded
    assert identical(resumed, expected)
    last = script.train(trainer)[LAST]
    assert distance(parameters(last), parameters(one[method][LAST])) < 1e-4
    assert identical(by_sample([last]), by_sample([one[method][LAST]]))


def test_the_first_mask_of_labelled_samples_stays_with_their_ranks(two: list[Any]) -> None:
    for found in two:
        epochs = [found["bbam as published"][epoch]["samples"]["labeled"] for epoch in (MAIN, LAST)]
        assert torch.equal(epochs[0]["selected"], epochs[1]["selected"])
        assert not epochs[0]["selected"].all()
        plain = [found["bbam"][epoch]["samples"]["labeled"] for epoch in (MAIN, LAST)]
        assert torch.equal(epochs[0]["index"], plain[0]["index"])


def test_the_shares_of_some_steps_are_empty(script: ModuleType) -> None:
    """The reason for the small batches."""
    steps = script.make_trainer(RUNS["softmatch"])._steps(MAIN, main_phase=True)
    shares = [
        share
        for rank in (0, 1)
        for share in main_phase_shares(steps._labeled, steps._unlabeled, rank, 2)[0]
    ]
    assert any(not len(share.labeled) for share in shares)
    assert any(share.unlabeled.start == share.unlabeled.stop for share in shares)
