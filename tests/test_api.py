"""Use from Python: options and settings as on the command line, a study as the result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from bbam_ray.cli.search_rules import SamplerName

from bbam_ray import Study, train, tune_study
from bbam_ray.api import _arguments
from bbam_ray.cli.tune import tune
from bbam_ray.documents import parse_assignments
from bbam_ray.errors import UsageError

SETTINGS: dict[str, Any] = {
    "scenes": 100,
    "test_scenes": 40,
    "hidden_dim": 16,
    "feature_dim": 8,
    "warmup_passes": 1,
}
SHORT = {"labeled_fraction": 0.5, "epochs": 2, "warmup_epochs": 1, "quiet": True}


def test_a_run_is_trained_and_returned(tmp_path: Path) -> None:
    run = train("digits", settings=SETTINGS, results=tmp_path, name="run", test=True, **SHORT)
    assert isinstance(run, Study)
    assert run.status == "COMPLETE"
    assert run.history["epoch"].tolist() == [1, 2]
    assert run.confirm["test_map"].between(0, 1).all()
    assert run.folder == tmp_path / "digits" / "run"
    kept = tmp_path / "best.yaml"
    mine = {name: run.best[name] for name in (*SETTINGS, "labeled_fraction", "warmup_epochs")}
    kept.write_text(yaml.safe_dump({**mine, "method": "supervised", "epochs": 1}))
    other = train(config=kept, results=tmp_path, quiet=True)
    assert other.record["method"] == "supervised"
    again = train(settings={**run.best, "epochs": 1}, results=str(tmp_path), quiet=True)
    assert again.history["epoch"].tolist() == [1]


def test_settings_of_any_kind_arrive_as_they_were_given() -> None:
    given = {"a": 1, "b": 0.5, "c": True, "d": math.inf, "e": -math.inf, "f": "x: y", "g": None}
    arguments = _arguments(tune, {"sampler": "gp", "workers": 2, "space": "s.yaml"}, given)
    assert parse_assignments(arguments["set_"]) == given
    assert arguments["sampler"] is SamplerName.gp
    assert arguments["workers"] == "2"
    assert arguments["space"] == Path("s.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sample": 3}, "unknown option 'num_sample'; did you mean 'num_samples'?"),
        ({"dry_run": True}, "unknown option 'dry_run'"),
        ({"scheduler": "ash"}, "scheduler = 'ash' is not possible; did you mean 'asha'?"),
        ({"settings": {"scal": 3}}, "unknown setting 'scal'"),
        ({"num_samples": 0}, "num_samples = 0 is not possible; use at least 1"),
        ({"reduction_factor": 1, "scheduler": "asha"}, "reduction_factor = 1 is not possible"),
        ({"time_budget": -5}, "--time-budget -5"),
        ({"tracker": "mlfow"}, "tracker 'mlfow'"),
        ({"method": "bban"}, "unknown method 'bban'"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        tune_study(results=tmp_path, **options)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
