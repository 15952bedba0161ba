"""The pages in a real browser: figures are drawn without requests, and all is readable and usable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_comparison import studies_html
from bbam_ray.report.study_report import write_report

_MARKS = """
return [...document.querySelectorAll('.js-plotly-plot')].map(plot => [plot.id, [...plot.querySelectorAll(
  '.scatterlayer path, .barlayer path, .contourlayer path')].filter(mark => {
    const box = mark.getBoundingClientRect(); return box.width + box.height > 0; }).length]);
"""
_COLUMN = """
const heads = [...document.querySelectorAll('table.sortable th')];
const column = heads.findIndex(head => head.innerText.trim() === arguments[0]);
return [...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[column].innerText);
"""
_CLICK = """
const heads = [...document.querySelectorAll('table.sortable th')];
const head = heads.find(head => head.innerText.trim() === arguments[0]);
head.querySelector('button').click();
return heads.map(head => head.getAttribute('aria-sort'));
"""
# Contrast (WCAG) of each text in figures and tables with the background of the page.
_CONTRAST = """
const light = text => { const part = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2]; };
const ground = light(getComputedStyle(document.body).backgroundColor);
const contrast = colour => { const pair = [light(colour), ground].sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05); };
const found = [];
for (const e of document.querySelectorAll('.main-svg > g:not(.hoverlayer) text'))
  if (e.textContent.trim()) found.push(contrast(getComputedStyle(e).fill));
for (const e of document.querySelectorAll('td, th, p, h1, h2, h3, pre'))
  found.push(contrast(getComputedStyle(e).color));
return [found.length, Math.min(...found), ground];
"""


@pytest.fixture(scope="module")
def page(rich: Path) -> Path:
    return write_report(rich)


def check_drawn(tab: Any, at_least: int) -> None:
    marks = dict(tab.run(_MARKS))
    assert len(marks) >= at_least
    assert all(marks.values()), marks
    assert tab.errors() == []
    assert [url for url in tab.requests() if not url.startswith(("file:", "data:", "blob:"))] == []


def test_each_figure_is_drawn_without_requests(page: Path, tab: Any) -> None:
    tab.open(page)
    check_drawn(tab, at_least=18)


@pytest.mark.ray
def test_the_report_of_a_real_search_is_drawn(real_study: Path, tab: Any) -> None:
    tab.open(real_study / "report.html")
    check_drawn(tab, at_least=18)
    text = tab.run("return document.body.innerText")
    assert "On test data, final answer (2 seeds): mAP" in text
    assert "Too few trials: 3 complete" in text


def test_columns_sort_by_value_and_missing_values_stay_last(page: Path, tab: Any) -> None:
    tab.open(page)
    for column, read in (("val_map", float), ("negative_ratio", float), ("state", str)):
        order = tab.run(_CLICK, column)
        assert order.count("ascending") == 1 and order.count(None) == len(order) - 1
        first = tab.run(_COLUMN, column)
        known = [read(text) for text in first if text]
        assert known == sorted(known) and first[: len(known)] == [t for t in first if t]
        assert tab.run(_CLICK, column).count("descending") == 1
        again = tab.run(_COLUMN, column)
        back = [read(text) for text in again if text]
        assert back == sorted(known, reverse=True) and again[: len(back)] == [t for t in again if t]
    assert "" in tab.run(_COLUMN, "val_map")  # the failed trial


def test_headers_work_with_the_keyboard(page: Path, tab: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    tab.open(page)
    tab.run("document.querySelector('table.sortable th button').focus()")
    tab.driver.switch_to.active_element.send_keys(Keys.TAB)
    tab.driver.switch_to.active_element.send_keys(Keys.ENTER)
    sort = "return document.querySelectorAll('table.sortable th')[1].getAttribute('aria-sort')"
    assert tab.run(sort) == "ascending"


def test_the_list_of_labels_changes_the_histogram(page: Path, tab: Any) -> None:
    tab.open(page)
    shown = "return document.getElementById('plot-angles').data[0].y.length + ' ' + "
    shown += "document.getElementById('plot-angles').layout.annotations[0].text"
    before = tab.run(shown)
    tab.run(
        "const s = document.querySelector('select[data-plot]'); s.selectedIndex = 2;"
        "s.dispatchEvent(new Event('change'))"
    )
    assert tab.run(shown) != before
    assert tab.run("return document.querySelector('select[data-plot]').length") == 22
    assert tab.errors() == []


def test_on_a_phone_the_page_does_not_scroll_sideways(page: Path, tab: Any) -> None:
    tab.open(page, width=390)
    wide, seen = tab.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert seen == 390 and wide <= 390
    check_drawn(tab, at_least=18)


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_both_color_schemes(dark: bool, page: Path, tab: Any) -> None:
    tab.open(page, dark=dark)
    count, contrast, ground = tab.run(_CONTRAST)
    assert count > 300
    assert contrast >= 4.5  # required by WCAG AA
    assert (ground < 0.1) == dark


def test_the_comparison_of_studies_is_drawn(
    rich: Path, write_study: Callable[..., Path], tmp_path: Path, tab: Any
) -> None:
    other = write_study(tmp_path / "other", trials=5, labels=3, confirmed=())
    path = tmp_path / "page.html"
    reports = [ReportData(rich), ReportData(other)]
    path.write_text(studies_html(reports, "bbam-ray report"), encoding="utf-8")
    tab.open(path, width=390)
    check_drawn(tab, at_least=3)
    assert tab.run("return document.documentElement.scrollWidth") <= 390
