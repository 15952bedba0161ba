"""The report: one offline page with the results, in which texts from outside stay texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.errors import UsageError
from bbam_ray.report.study_report import write_report
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import COMPLETE, StudyRecord

EVIL = "</script><script>alert(1)</script><img src=http://x.example/a onerror=alert(2)>"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._silent = "", 0
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data


@pytest.fixture()
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a study of three trials; arguments change its content."""

    def make(
        labels: tuple[str, ...] = ("cat", "dog"),
        states: tuple[str, ...] = ("COMPLETE", "COMPLETE", "FAILED"),
        error: str | None = None,
        confirm: tuple[float, ...] = (0.7, 0.8),
        mode: str = "max",
        **content: Any,
    ) -> Path:
        folder = tmp_path / "digits" / "mine"
        space = {"metric": "val_map", "mode": mode}
        environment = {
            "packages": {"torch": "2.11", "ray": None},
            "python": "3.11",
            "cpu_count": 2,
            "gpu": None,
            "git_commit": None,
        }
        given = {"dataset": "digits", "method": "bbam", "space": space, "environment": environment}
        record = StudyRecord.create(folder, {**given, **content})
        store = StudyStore(folder, {"scale": "float", "balance": "bool"})
        for number, state in enumerate(states):
            who = {"study": "mine", "trial_id": f"t{number}", "number": number}
            value = (0.5, 0.625, None)[number]
            store.trials.put(
                [
                    who
                    | {"state": state, "val_map": value, "best_epoch": 2, "epochs": 2}
                    | {"param_scale": 20.0 + number, "param_balance": number != 1}
                    | {"duration_s": 1.5, "error": error if state == "FAILED" else None}
                ]
            )
            for epoch, phase in ((1, "warmup"), (2, "main")):
                values = {"epoch": epoch, "phase": phase, "val_map": value}
                store.history.put([who | values])
                store.labels.put(
                    who | {"epoch": epoch, "label": label, "val_ap": 0.5, "vdfd": 0.1 * epoch}
                    for label in labels
                )
        for seed, value in enumerate(confirm):
            who = {"study": "mine", "trial_id": "t1", "number": 1}
            store.confirm.put([who | {"rank": 1, "seed": seed, "test_map": value}])
        store.flush()
        record.end(COMPLETE)
        return folder

    return make


def page_of(folder: Path) -> tuple[str, Page]:
    path = write_report(folder)
    assert path == folder / "report.html"
    source = path.read_text(encoding="utf-8")
    return source, Page(source)


def test_the_report_is_one_file_that_loads_nothing(study: Callable[..., Path]) -> None:
    folder = study()
    before = {path.name for path in folder.iterdir()}
    source, page = page_of(folder)
    assert {path.name for path in folder.iterdir()} - before == {"report.html"}
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base"), tag
        assert "src" not in attributes, (tag, attributes)
        assert str(attributes.get("href", "#")).startswith("#"), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", source, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert source.count("Plotly.newPlot(") >= 3


def test_the_best_result_comes_first(study: Callable[..., Path]) -> None:
    source, page = page_of(study())
    text = page.text
    assert "Chosen of 2 complete trials: trial 1, val_map 0.6250" in text
    assert "Published settings (trial 0): 0.5000" in text
    assert "On test data, trial 1 (2 seeds): mAP 0.7500" in " ".join(text.split())
    assert "0.0707" in text  # the deviation of 0.7 and 0.8
    order = ("The final answer reaches", "Next steps", "Chosen of", "All trials", "main phase")
    positions = [source.index(part) for part in order]
    assert positions == sorted(positions)
    rows = [attributes for tag, attributes in page.tags if tag == "tr"]
    assert sum(attributes.get("class") == "best" for attributes in rows) == 1
    table = source.split('<table class="sortable">')[1].split("</table>")[0]
    assert table.count("<tr") == 4


def test_with_mode_min_the_lowest_value_is_best(study: Callable[..., Path]) -> None:
    assert "trial 0, val_map 0.5000" in page_of(study(mode="min"))[1].text


def test_figures_contain_the_curves_of_trials_and_labels(study: Callable[..., Path]) -> None:
    source, page = page_of(study(labels=("zebra", "okapi")))
    for name in ("trial 0", "trial 1", "zebra", "okapi", "main phase"):
        assert f'"{name}"' in source
    assert "Variance bias (VDFD)" in page.text


def test_several_objectives_have_a_figure_of_their_pareto_front(study: Callable[..., Path]) -> None:
    folder = study(states=("COMPLETE", "COMPLETE", "FAILED"))
    assert "Pareto" not in page_of(folder)[1].text
    store = StudyStore(folder, {"scale": "float", "balance": "bool"})
    rows = store.trials.rows()
    for row, seconds, best in zip(rows, (3.0, 1.0, None), (False, True, False), strict=True):
        store.trials.put([row | {"seconds_per_epoch": seconds, "pareto": best}])
    store.flush()
    space = {"metric": "val_map", "mode": "max", "also": [["seconds_per_epoch", "min"]]}
    StudyRecord.open(folder).update(space=space)
    source, page = page_of(folder)
    assert "Pareto front" in page.text
    assert source.count('id="plot-pareto"') == 1
    front = re.search(r'"name":"Pareto front","text":\["(trial \d)"\],"x":\[([\d.]+)\]', source)
    assert front and front.groups() == ("trial 1", "1.0")


@pytest.mark.parametrize(
    "where",
    ["labels", "error", "study", "dataset", "method", "command", "status"],
)
def test_text_from_outside_is_shown_as_text(where: str, study: Callable[..., Path]) -> None:
    folder = study(
        labels=(EVIL, "b") if where == "labels" else ("a", "b"),
        error=EVIL if where == "error" else None,
    )
    harmless = Counter(tag for tag, _ in page_of(folder)[1].tags)
    if where not in ("labels", "error"):
        StudyRecord.open(folder).update(**{where: EVIL})
    source, page = page_of(folder)
    assert "<script>alert" not in source and "<img" not in source
    assert Counter(tag for tag, _ in page.tags) == harmless
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    if where != "labels":
        assert EVIL in page.text


def test_a_study_without_ended_trials_has_nothing_to_report(study: Callable[..., Path]) -> None:
    folder = study(states=(), confirm=())
    with pytest.raises(UsageError, match="no trial of this study has ended"):
        write_report(folder)
    (folder / "trials.parquet").unlink()
    with pytest.raises(UsageError, match="no trial"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_study_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no study"):
        write_report(tmp_path)


def test_a_study_of_failed_trials_has_a_report_with_their_errors(
    study: Callable[..., Path],
) -> None:
    folder = study(states=("FAILED", "FAILED"), error="RuntimeError: a < b", confirm=())
    _, page = page_of(folder)
    assert "No trial completed." in page.text
    assert "2 trials have ended: 2 failed." in page.text
    assert page.text.count("RuntimeError: a < b") == 3  # the first one also at the top


def test_a_study_without_confirmation_has_a_report(study: Callable[..., Path]) -> None:
    folder = study(confirm=())
    (folder / "confirm.parquet").unlink()
    assert "Confirmed" not in page_of(folder)[1].text


def test_writing_again_replaces_the_report(study: Callable[..., Path]) -> None:
    folder = study()
    first, _ = page_of(folder)
    (folder / "report.html").write_text("old")
    second, _ = page_of(folder)
    assert second != "old"
    assert len(second) == len(first)
