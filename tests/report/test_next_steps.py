"""Next steps: commands for the very study, which the real command line accepts."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from bbam_ray.cli.main import app
from bbam_ray.report.next_steps import next_steps
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_report import write_report
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import FAILED, INTERRUPTED, RUNNING, StudyRecord

GAIN = {"over": "published", "difference": 0.05, "low": 0.03, "high": 0.07, "seeds": 3}
#: the searched settings of ``write_study``
KINDS = dict.fromkeys(("scale", "margin", "negative_ratio"), "float")
KINDS |= {"balance": "bool", "clamp": "bool"}
TUNE = "python launch/tune.py --dataset digits --num-samples 4 --set scale=5 --name old"


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """The subcommand and its values, as the real parser of the command line reads them."""
    words = shlex.split(line)
    if words[0] == "python":
        assert words[1].startswith("launch/")
        words = ["bbam-ray", Path(words[1]).stem, *words[2:]]
    assert words[0] == "bbam-ray"
    group = typer.main.get_command(app)
    command = group.commands[words[1]]  # type: ignore[attr-defined]
    return words[1], command.make_context(words[1], words[2:], resilient_parsing=False).params


@pytest.fixture()
def steps(
    write_study: Callable[..., Path], tmp_path: Path
) -> Callable[..., list[tuple[str, dict]]]:
    """The parsed steps of a study of four trials whose record has other entries."""
    folder = tmp_path / "my results" / "digits" / "mine"

    def of(
        *, confirmed: bool = True, trials: dict[str, Any] | None = None, **entries: Any
    ) -> list[tuple[str, dict[str, Any]]]:
        written = {"trials": 4, "pruned": 0, "labels": 1, "best_scale": 15.0, **(trials or {})}
        write_study(folder, **written)
        if not confirmed:
            (folder / "confirm.parquet").unlink()
        StudyRecord.open(folder).update(**{"command": TUNE, **entries})
        result = next_steps(ReportData(folder)).steps
        assert all(step.purpose for step in result)
        return [parsed(step.command) for step in result]

    return of


def names(steps: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [name for name, _ in steps]


def test_after_a_gain_the_model_comes_first(steps: Callable[..., Any], tmp_path: Path) -> None:
    result = steps(gain={"published": GAIN})
    assert names(result) == ["predict", "export", "tune", "tune", "compare"]
    folder = tmp_path / "my results" / "digits" / "mine"
    assert result[0][1]["model"] == result[1][1]["model"] == folder
    for _, values in result[2:4]:
        assert values["resume"] and values["name"] == "mine"
        assert values["results"] == tmp_path / "my results"
        assert values["set_"] == ["scale=5"]
    assert (result[2][1]["confirm_seeds"], result[2][1]["num_samples"]) == (6, 4)
    assert (result[3][1]["confirm_seeds"], result[3][1]["num_samples"]) == (3, 8)
    compare = result[4][1]
    assert compare["methods"] == "bbam,supervised,logistic,propagation,logistic+propagation"
    assert compare["labeled_fractions"] == "0.05"
    assert compare["tune_samples"] == 4


def test_a_comparison_shares_all_settings_but_those_of_the_method(
    steps: Callable[..., Any],
) -> None:
    settings = {"scale": 5.0, "scenes": 150, "epochs": 6, "labeled_fraction": 0.1}
    result = steps(settings=settings, method_settings=["margin", "scale"])
    (compare,) = (values for name, values in result if name == "compare")
    assert compare["methods"].startswith("bbam:scale=5.0,supervised,")
    assert compare["set_"] == ["scenes=150", "epochs=6"]
    assert compare["labeled_fractions"] == "0.1"


def test_without_a_sure_gain_measuring_comes_first(steps: Callable[..., Any]) -> None:
    result = steps(gain={"published": GAIN | {"low": -0.01}})
    assert names(result) == ["tune", "predict", "export", "tune", "compare"]
    assert result[0][1]["confirm_seeds"] == 6


def test_a_study_without_confirmation_can_be_confirmed(steps: Callable[..., Any]) -> None:
    command = f"{TUNE} --confirm-seeds 0"
    result = steps(confirmed=False, command=command, confirm={"top": 1, "seeds": 0})
    assert names(result) == ["tune", "tune", "compare"]
    assert (result[0][1]["confirm_top"], result[0][1]["confirm_seeds"]) == (1, 3)
    assert result[0][1]["resume"]


def test_without_test_labels_the_best_is_trained(steps: Callable[..., Any], tmp_path: Path) -> None:
    result = steps(confirmed=False, confirm={"top": 1, "seeds": 0})
    assert names(result)[0] == "train"
    best = tmp_path / "my results" / "digits" / "mine" / "best.yaml"
    assert result[0][1]["config"] == best and best.is_file()


def test_a_setting_at_its_bound_leads_to_a_wider_space(
    steps: Callable[..., Any], tmp_path: Path
) -> None:
    result = steps(trials={"best_scale": 30.0}, space_file="search_spaces/digits.yaml")
    wider = [values for name, values in result if name == "tune" and not values["resume"]]
    assert len(wider) == 1
    assert wider[0]["space"] == Path("wider.yaml")
    assert wider[0]["warm_start"] == tmp_path / "my results" / "digits" / "mine"
    assert wider[0]["name"] == "mine-wider"


@pytest.mark.parametrize("status", [RUNNING, INTERRUPTED, FAILED])
def test_an_unfinished_study_is_resumed_as_it_was(status: str, steps: Callable[..., Any]) -> None:
    result = steps(status=status, num_samples=9, command=f"{TUNE} --num-samples=9 --resume")
    resumed = [values for name, values in result if name == "tune"]
    assert len(resumed) == 1
    assert resumed[0]["resume"] and resumed[0]["num_samples"] == 9
    expected = ["watch", "report", "tune"] if status == RUNNING else ["tune", "predict", "export"]
    assert names(result) == expected


def test_a_budget_that_is_used_up_is_raised_for_more_trials(steps: Callable[..., Any]) -> None:
    result = steps(command=f"{TUNE} --gpu-hours 1.5 --time-budget 30m")
    longer = next(
        values for name, values in result if name == "tune" and values["num_samples"] == 8
    )
    assert (longer["gpu_hours"], longer["time_budget"]) == (3.0, "30m")


def test_failed_trials_are_not_repeated_by_resume(steps: Callable[..., Any]) -> None:
    result = steps(trials={"failed": 4}, confirmed=False, status=FAILED)
    assert names(result) == ["doctor", "tune"]
    # The trials of this table have no time of their start: no worker could start.
    assert result[1][1]["resume"] and result[1][1]["name"] == "mine"


def test_a_study_whose_trials_all_failed_is_started_again(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "s", trials=3, failed=3, pruned=0, labels=1, confirmed=())
    (folder / "confirm.parquet").unlink()
    store = StudyStore(folder, KINDS)
    for row in store.trials.rows():
        store.trials.put([row | {"started_at": datetime.now(UTC)}])
    store.flush()
    StudyRecord.open(folder).update(status=FAILED, command=f"{TUNE} --resume", num_samples=3)
    name, values = parsed(next_steps(ReportData(folder)).steps[1].command)
    assert (name, values["name"], values["resume"]) == ("tune", "s-again", False)


def test_a_study_of_another_program_has_a_complete_command(steps: Callable[..., Any]) -> None:
    settings = {"labeled_fraction": 0.1, "folds": 5, "device": "cpu", "label_separator": " ; "}
    rules = {"sampler": "gp", "stopping": {"scheduler": "asha", "grace": 7, "reduction": 4}}
    result = steps(command="jupyter kernel", settings=settings, rules=rules, seed=3)
    resumed = next(values for name, values in result if name == "tune")
    assert resumed["dataset"] == "digits" and resumed["method"] == "bbam" and resumed["seed"] == 3
    assert resumed["folds"] == 5 and resumed["sampler"] == "gp"
    assert (resumed["scheduler"], resumed["grace_epochs"], resumed["reduction_factor"]) == (
        "asha",
        7,
        4,
    )
    assignments = dict(each.split("=", 1) for each in resumed["set_"])
    assert {name: yaml.safe_load(text) for name, text in assignments.items()} == {
        "labeled_fraction": 0.1,
        "label_separator": " ; ",
    }


def test_a_run_can_be_used_and_searched(steps: Callable[..., Any]) -> None:
    space = {"metric": "val_map", "mode": "max", "parameters": {}, "fixed": {}}
    trials = {"trials": 1, "failed": 0, "confirmed": ()}
    command = "/opt/bin/bbam-ray train --epochs 5 --test"
    result = steps(trials=trials, space=space, num_samples=1, command=command)
    assert names(result) == ["predict", "export", "tune"]
    assert result[2][1]["labeled_fraction"] == 0.05


@pytest.mark.parametrize("status", [RUNNING, INTERRUPTED, FAILED])
def test_a_run_is_resumed(status: str, steps: Callable[..., Any]) -> None:
    space = {"metric": "val_map", "mode": "max", "parameters": {}, "fixed": {}}
    trials = {"trials": 1, "failed": 0, "confirmed": ()}
    command = "/opt/bin/bbam-ray train --epochs 5 --test"
    result = steps(trials=trials, space=space, num_samples=1, command=command, status=status)
    resumed = [values for name, values in result if name == "train"]
    assert len(resumed) == 1
    assert resumed[0]["resume"] and resumed[0]["epochs"] == 5 and resumed[0]["name"] == "mine"


def test_a_study_of_a_comparison_is_resumed_with_it(steps: Callable[..., Any]) -> None:
    result = steps(command="python launch/compare.py --methods bbam,cap", status=INTERRUPTED)
    assert names(result) == ["compare", "predict", "export", "report"]
    assert result[0][1]["resume"] and result[0][1]["methods"] == "bbam,cap"


def test_programs_are_those_of_the_study(write_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", trials=3, labels=1)
    for command, program in (
        (TUNE, "python launch/predict.py"),
        ("/opt/bin/bbam-ray tune", "bbam-ray predict"),
        ("python launch/compare.py --methods bbam", "python launch/predict.py"),
        ("jupyter kernel", "bbam-ray predict"),
    ):
        StudyRecord.open(folder).update(command=command)
        steps = next_steps(ReportData(folder)).steps
        assert any(step.command.startswith(f"{program} ") for step in steps), command


@pytest.mark.ray
def test_the_programs_accept_the_steps_of_a_real_study(
    real_study: Path, run_command: Callable[..., Any]
) -> None:
    """Plan each search and export the model, in the folder where the study was started."""
    above = real_study.parents[2]
    data = ReportData(real_study)
    shutil.copy(data.record["space_file"], above / "wider.yaml")
    ran = []
    for step in next_steps(data).steps:
        program = Path(shlex.split(step.command)[1]).stem
        if program in ("tune", "export"):
            run_command(step.command, above, *(["--dry-run"] if program == "tune" else []))
            ran.append(program)
    assert ran.count("export") == 1 and ran.count("tune") >= 2
    compare = next_steps(data).steps[-1].command
    assert "--methods bbam,supervised" in compare
    assert "--set scenes=150" in compare and "--set hidden_dim=16" in compare
    assert (above / "real-model").is_dir()


def test_options_that_are_not_recorded_are_named(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "s", trials=3, labels=1)
    for command, missing in (
        (TUNE, ()),
        ("python launch/compare.py --methods bbam", ()),
        ("jupyter kernel", ("--final", "--confirm-pools", "--no-baselines")),
    ):
        StudyRecord.open(folder).update(command=command)
        assert next_steps(ReportData(folder)).missing == missing
        html = write_report(folder).read_text(encoding="utf-8")
        assert ("add --final, --confirm-pools, --no-baselines if it used them" in html) == bool(
            missing
        )


def test_credentials_are_replaced(write_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", trials=3, labels=1)
    StudyRecord.open(folder).update(command=f"{TUNE} --set password=secret")
    steps = next_steps(ReportData(folder))
    assert steps.placeholder == "REDACTED"
    assert not any("secret" in step.command for step in steps.steps)


def test_results_on_object_storage_keep_their_address(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "s", trials=3, labels=1)
    StudyRecord.open(folder).update(command=f"{TUNE} --results s3://bucket/results")
    lines = [step.command for step in next_steps(ReportData(folder)).steps]
    values = [parsed(line)[1] for line in lines]
    models = [str(value["model"]) for value in values if "model" in value]
    assert set(models) == {"s3:/bucket/results/digits/s"}  # pathlib removes a slash, as in predict
    assert all("s3://bucket/results" in line for line in lines)
