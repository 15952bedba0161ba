"""Names, errors and settings with HTML in them are shown as text on pages, and no script runs."""

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
    """Counts the elements that a browser would create."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: Counter[tuple[str, ...]] = Counter()
        self.inside: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = (name for name, _ in attrs)
        self.elements[tag, *sorted(named)] += 1
        links = [value or "" for name, value in attrs if name in ("href", "src")]
        assert not [url for url in links if not url.startswith(("/plotly.js", "data:", "#"))], links


def study(folder: Path, text: str) -> Path:
    """A study with this text in every value that a user or a library can set."""
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
        identity = {"study": text, "trial_id": f"t{number:05}", "number": number}
        row = identity | {"state": state, "best_epoch": 2, "epochs": 2, "duration_s": 5.0}
        row |= {"val_map": 0.5 + number / 10, "param_scale": 10.0 + number, "param_weights": text}
        row |= {"error": text if state == "FAILED" else None, "answered_by": text}
        store.trials.put([row])
    for number in range(4):
        identity = {"study": text, "trial_id": f"t{number:05}", "number": number}
        for epoch in (1, 2):
            row = identity | {"epoch": epoch, "phase": text, "val_map": 0.5, "loss": 1.0}
            store.history.put([row])
            for label in (text, f"{text} 2"):
                store.labels.put([identity | {"epoch": epoch, "label": label, "val_ap": 0.5}])
    store.flush()
    return folder


def assert_harmless(hostile: str, plain: str) -> None:
    """A page with payloads has the same elements as one without, and every payload is escaped."""
    assert Tags(hostile).elements == Tags(plain).elements
    for payload in (
        *PAYLOADS,
        "<script>alert",
        "<img src=x",
        "<svg onload",
        "javascript:alert(4)'>",
    ):
        assert payload not in hostile, payload
    # Plots: Plotly turns such texts into links, unless they are escaped twice.
    assert not re.search(r"\\u003c(?:a|img|svg|script)[ >\\]", hostile)


@pytest.fixture()
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return study(tmp_path / "a" / "x", EVERYTHING), study(tmp_path / "b" / "x", "harmless words")


def test_the_live_page_escapes_html(pair: tuple[Path, Path]) -> None:
    hostile, plain = (live_html(folder) for folder in pair)
    assert_harmless(hostile, plain)
    assert "&lt;img src=x onerror=alert(2)&gt;" in hostile


def test_reports_escape_html(pair: tuple[Path, Path]) -> None:
    assert_harmless(*(write_report(folder).read_text() for folder in pair))
    hostile, plain = (
        studies_html([ReportData(folder), ReportData(folder)], f"report {text}")
        for folder, text in zip(pair, (EVERYTHING, "words"), strict=True)
    )
    assert_harmless(hostile, plain)


def test_file_names_of_plots_contain_no_path(tmp_path: Path) -> None:
    folders = [study(tmp_path / name / "x", "../../../etc/x") for name in "ab"]
    for name in named_figures([ReportData(folder) for folder in folders]):
        assert Path(name).name == name


def card(text: str, settings: dict[str, Any], origin: Origin | None) -> str:
    return model_card(settings, [text, "cat|dog"], origin, {f"{text}.onnx": text}, text)


def test_a_model_card_escapes_html(tmp_path: Path) -> None:
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
