"""Texts of others on pages: names, errors and settings with HTML in them stay texts, and nothing runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.report.live_page import live_html
from bbam_ray.report.model_card import Origin, model_card
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_comparison import named_figures, studies_html
from bbam_ray.report.study_report import write_report
from bbam_ray.results.store import StudyStore
from bbam_ray.results.study import StudyRecord

PAYLOADS = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"'><svg onload=alert(3)>",
    "<a href='javascript:alert(4)'>x</a>",
    "</title></style><script src=//evil.example></script>",
)
EVERYTHING = " ".join(PAYLOADS)


class Tags(HTMLParser):
    """What a browser would make elements of."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, ...]] = Counter()
        self.inside: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = (name for name, _ in attrs)
        self.found[tag, *sorted(named)] += 1
        links = [value or "" for name, value in attrs if name in ("href", "src")]
        assert not [url for url in links if not url.startswith(("/plotly.js", "data:"))], links


def study(folder: Path, text: str) -> Path:
    """A study with a text in every place that comes from outside."""
    parameters = {"scale": {"type": "float", "low": 10.0, "high": 30.0}}
    parameters["weights"] = {"type": "categorical", "choices": [text, "none"]}
    space = {"metric": "val_map", "mode": "max", "parameters": parameters}
    environment = {"packages": {"torch": text}, "python": text, "cpu_count": 2}
    environment |= {"gpu": text, "git_commit": text, "host": text}
    content = {"dataset": text, "method": text, "space": space, "environment": environment}
    content |= {"settings": {"data_dir": text, "weights": text}, "num_samples": 4, "seed": 0}
    record = StudyRecord.create(folder, content)
    record.update(command=f"python launch/tune.py --data-dir '{text}'", study=text)
    store = StudyStore(folder, {"scale": "float", "weights": "str"})
    for number, state in enumerate(("COMPLETE", "COMPLETE", "FAILED")):
        who = {"study": text, "trial_id": f"t{number:05}", "number": number}
        row = who | {"state": state, "best_epoch": 2, "epochs": 2, "duration_s": 5.0}
        row |= {"val_map": 0.5 + number / 10, "param_scale": 10.0 + number, "param_weights": text}
        row |= {"error": text if state == "FAILED" else None, "answered_by": text}
        store.trials.put([row])
    for number in range(4):
        who = {"study": text, "trial_id": f"t{number:05}", "number": number}
        for epoch in (1, 2):
            row = who | {"epoch": epoch, "phase": text, "val_map": 0.5, "loss": 1.0}
            store.history.put([row])
            for label in (text, f"{text} 2"):
                store.labels.put([who | {"epoch": epoch, "label": label, "val_ap": 0.5}])
    store.flush()
    return folder


def assert_harmless(hostile: str, plain: str) -> None:
    """A page with payloads has the elements of one without, and no payload as it stands."""
    assert Tags(hostile).found == Tags(plain).found
    for payload in (
        *PAYLOADS,
        "<script>alert",
        "<img src=x",
        "<svg onload",
        "javascript:alert(4)'>",
    ):
        assert payload not in hostile, payload
    # Figures: Plotly makes links of such texts, unless they are escaped once more.
    assert not re.search(r"\\u003c(?:a|img|svg|script)[ >\\]", hostile)


@pytest.fixture()
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return study(tmp_path / "a" / "x", EVERYTHING), study(tmp_path / "b" / "x", "harmless words")


def test_the_page_of_a_study_that_runs_shows_texts_as_texts(pair: tuple[Path, Path]) -> None:
    hostile, plain = (live_html(folder) for folder in pair)
    assert_harmless(hostile, plain)
    assert "&lt;img src=x onerror=alert(2)&gt;" in hostile


def test_reports_of_one_study_and_of_several_show_texts_as_texts(pair: tuple[Path, Path]) -> None:
    assert_harmless(*(write_report(folder).read_text() for folder in pair))
    hostile, plain = (
        studies_html([ReportData(folder), ReportData(folder)], f"report {text}")
        for folder, text in zip(pair, (EVERYTHING, "words"), strict=True)
    )
    assert_harmless(hostile, plain)


def test_pictures_are_written_nowhere_else_by_the_name_of_a_data_set(tmp_path: Path) -> None:
    folders = [study(tmp_path / name / "x", "../../../etc/x") for name in "ab"]
    for name in named_figures([ReportData(folder) for folder in folders]):
        assert Path(name).name == name


def card(text: str, settings: dict[str, Any], origin: Origin | None) -> str:
    return model_card(settings, [text, "cat|dog"], origin, {f"{text}.onnx": text}, text)


def test_a_model_card_shows_texts_as_texts(tmp_path: Path) -> None:
    cards = []
    for text in (
        f"{EVERYTHING} [x](javascript:alert(5)) `</code>` | c |\n---\n# head\n",
        "harmless words",
    ):
        settings = {"dataset": text, "method": text, "input_shape": [4], "weights": text}
        settings |= {"seed": 0, "epochs": 1, "validation_fraction": 0.2, "labeled_fraction": 0.1}
        environment = {"packages": {"torch": text}, "git_commit": text}
        record = {"environment": environment, "study": text, "command": f"tune '{text}'"}
        cards.append(card(text, settings, Origin(record, None, [])))
    hostile, plain = cards
    spans = re.compile(r"`[^`\n]*`")  # in a span of code nothing is HTML
    body = spans.sub("", hostile.split("\n---\n", 1)[1].replace("\\`", ""))
    assert "<" not in body and not re.search(r"(?<!\\)\]\(", body)
    assert "<" not in hostile.split("\n---\n", 1)[0]
    assert len(hostile.splitlines()) == len(plain.splitlines())
    for line, other in zip(hostile.splitlines(), plain.splitlines(), strict=True):
        assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", other)), line
        assert line.count("`") - line.count("\\`") == other.count("`"), line
    front = hostile.split("\n---\n")[0].splitlines()
    assert front[-1].startswith('license: "') and json.loads(front[-1].removeprefix("license: "))
