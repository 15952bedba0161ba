"""Pages for everyone: checked by axe, usable with the keyboard, readable without seeing figures."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.report.method_comparison import comparison_html
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_comparison import studies_html
from bbam_ray.report.study_report import write_report
from bbam_ray.results.study import FAILED, INTERRUPTED, RUNNING, StudyRecord

GAIN = {"over": "published", "difference": 0.05, "low": 0.03, "high": 0.07, "seeds": 3}
_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})
  .then(result => done([result.passes.length, result.violations.map(violation =>
    [violation.id, violation.nodes.map(node => node.html.slice(0, 200))])]));
"""
_STATES: dict[str, dict[str, Any]] = {
    "gain": {"gain": {"published": GAIN}},
    "not confirmed": {},
    "running": {"status": RUNNING, "ended_at": None},
    "interrupted": {"status": INTERRUPTED},
    "failed": {"status": FAILED},
}


@pytest.fixture(scope="module", params=[*_STATES, "run", "studies", "methods"])
def page(
    request: pytest.FixtureRequest,
    write_study: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A page of each kind, and the report of a study in each state."""
    folder = tmp_path_factory.mktemp("pages") / "results" / "digits" / "study"
    path = folder / "page.html"
    if request.param == "methods":
        folder.mkdir(parents=True)
        path.write_text(comparison_html("Methods", [], "bbam-ray compare"), encoding="utf-8")
        return path
    kind = request.param
    if kind == "run":
        space = {"metric": "val_map", "mode": "max", "parameters": {}, "fixed": {}}
        write_study(folder, trials=1, failed=0, pruned=0, labels=3, confirmed=(), space=space)
        return write_report(folder)
    failed = 4 if kind == "failed" else 1
    write_study(folder, trials=4, labels=4, failed=failed, pruned=0)
    if kind == "studies":
        other = write_study(folder.with_name("other"), trials=4, labels=3)
        reports = [ReportData(each) for each in (folder, other)]
        path.write_text(studies_html(reports, "bbam-ray report"), encoding="utf-8")
        return path
    if kind != "gain":
        (folder / "confirm.parquet").unlink()
    StudyRecord.open(folder).update(**_STATES[kind])
    return write_report(folder)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_reports_no_violation(dark: bool, page: Path, tab: Any) -> None:
    tab.open(page, dark=dark)
    axe = resources.files("axe_playwright_python") / "axe.min.js"
    tab.run(axe.read_text(encoding="utf-8"))
    passed, violations = tab.driver.execute_async_script(_AXE)
    assert passed > 15
    assert violations == []


def test_axe_sees_a_defect(rich: Path, tab: Any) -> None:
    tab.open(write_report(rich))
    tab.run("document.querySelector('.verdict').style.color = '#ccc'")
    tab.run((resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    _, violations = tab.driver.execute_async_script(_AXE)
    assert [name for name, _ in violations] == ["color-contrast"]


def test_headings_are_in_order_and_sections_are_linked(rich: Path, tab: Any) -> None:
    tab.open(write_report(rich))
    levels = tab.run("return [...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    links = tab.run("return [...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    sections = tab.run(
        "return [...document.querySelectorAll('section:not(.first) > h2')].map(h => h.id)"
    )
    assert links == sections and len(set(links)) == len(links) > 8


def test_every_figure_has_a_text_and_a_table(rich: Path, tab: Any) -> None:
    tab.open(write_report(rich))
    texts = tab.run(
        "return [...document.querySelectorAll('.js-plotly-plot')].map(plot =>"
        " plot.closest('[role=img]').getAttribute('aria-label'))"
    )
    assert len(texts) >= 18 and all(texts)
    curves = next(text for text in texts if text.startswith("val_map over epochs."))
    assert "Horizontal: epoch; vertical: val_map." in curves
    assert "trial 1 (best), 4 values from 0.2375 to 0.95" in curves
    rows = tab.run(
        "document.querySelectorAll('details.values').forEach(each => { each.open = true; });"
        "return new Promise(done => setTimeout(() => done("
        "[...document.querySelectorAll('details.values')].map(each => [each.dataset.plot,"
        " [...each.querySelectorAll('tbody tr')].map(row =>"
        " [...row.cells].map(cell => cell.innerText))])), 200));"
    )
    tables = dict(rows)
    assert len(tables) == len(texts) and all(tables.values())
    # Arrays, which Plotly stores as base64, and texts
    scale = [row for row in tables["plot-slice-scale"] if row[0] == "best"]
    assert scale == [["best", "1", "30", "0.95"]]
    assert {row[2] for row in tables["plot-slice-balance"]} == {"true", "false"}
    assert tab.errors() == []


def test_all_controls_work_with_the_keyboard(rich: Path, tab: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    tab.open(write_report(rich))

    def press(key: str) -> None:
        tab.driver.switch_to.active_element.send_keys(key)

    focus = "const e = document.activeElement; const style = getComputedStyle(e);"
    press(Keys.TAB)
    assert tab.run(f"{focus} return [e.className, e.getBoundingClientRect().width > 50]") == [
        "skip",
        True,
    ]
    press(Keys.ENTER)
    assert tab.run(f"{focus} return e.id") == "main"
    seen = []
    for _ in range(400):
        press(Keys.TAB)
        kind, outline = tab.run(
            f"{focus} return [e.className || e.tagName, style.outlineStyle + ' ' + style.outlineWidth]"
        )
        if kind in ("skip", "BODY"):
            break
        assert outline == "solid 3px", kind
        seen.append(kind)
    controls = tab.run(
        "return document.querySelectorAll('main :is(button, select, summary, [tabindex=\"0\"])').length"
    )
    assert len(seen) == controls > 40
    assert seen[0] == "copy"
    assert {"copy", "wide", "wide tall", "BUTTON", "SUMMARY", "SELECT"} == set(seen)


@pytest.mark.parametrize("clipboard", [True, False])
def test_enter_copies_a_command(clipboard: bool, rich: Path, tab: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    tab.open(write_report(rich))
    if not clipboard:  # as in browsers that have none for file://
        tab.run(
            "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
            "document.execCommand = () => false;"
        )
    tab.run(
        "window.copied = []; if (navigator.clipboard)"
        " navigator.clipboard.writeText = async text => { window.copied.push(text); };"
        "document.querySelectorAll('button.copy')[1].focus();"
    )
    command = tab.run("return document.querySelectorAll('.command code')[1].textContent")
    tab.driver.switch_to.active_element.send_keys(Keys.ENTER)
    button, status, copied, selected = tab.run(
        "return new Promise(done => setTimeout(() => done(["
        "document.activeElement.innerText, document.getElementById('copied').textContent,"
        "window.copied, String(getSelection())]), 100))"
    )
    assert selected.strip() == command
    assert copied == ([command] if clipboard else [])
    assert button == ("Copied" if clipboard else "Selected")
    assert ("in the clipboard" in status) == clipboard


def test_without_javascript_texts_and_commands_are_there(rich: Path, tab: Any) -> None:
    tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        tab.driver.get(write_report(rich).resolve().as_uri())
        from selenium.webdriver.common.by import By

        text = tab.driver.find_element(By.TAG_NAME, "body").text
    finally:
        tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "Figures need JavaScript" in text
    assert "Next steps" in text and "export --model" in text
    assert "Copy" not in text.splitlines()


def test_a_browser_that_cannot_unpack_the_library_says_so(rich: Path, tab: Any) -> None:
    call = tab.driver.execute_cdp_cmd
    script = call(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream;"}
    )
    try:
        tab.driver.get(write_report(rich).resolve().as_uri())
        shown = tab.run(
            "return new Promise(done => setTimeout(() =>"
            " done(!document.getElementById('no-figures').hidden), 500))"
        )
    finally:
        call("Page.removeScriptToEvaluateOnNewDocument", script)
    assert shown


def test_nothing_moves_if_the_reader_prefers_that(rich: Path, tab: Any) -> None:
    tab.open(write_report(rich))
    reduce = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    tab.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": reduce})
    moving = tab.run(
        "return [...document.querySelectorAll('*')].filter(e => { const s = getComputedStyle(e);"
        " return s.transitionProperty !== 'none' && s.transitionDuration !== '0s'"
        " || s.animationName !== 'none' || s.scrollBehavior !== 'auto'; }).length"
    )
    assert moving == 0


def test_the_first_screen_fits_a_small_laptop(page: Path, tab: Any) -> None:
    tab.open(page, width=1366)
    first = tab.run(
        "const e = document.querySelector('.first'); return e && e.getBoundingClientRect().bottom"
    )
    if first is not None:  # pages that compare have none
        assert first <= 768
