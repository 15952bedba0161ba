"""The reduced library of Plotly: complete for our figures, and whole where its structure is unknown."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from bbam_ray.report.plotly_library import TRACES, compressed_library, library, reduced
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_comparison import named_figures

#: The end of a bundle: modules of traces, and the call that registers them.
_BUNDLE = (
    "/* license */var a=W((e,t)=>{core});"
    'var b0=W((e,t)=>{x={moduleType:"trace",name:"scatter"}});var b=W((e,t)=>{t.exports=b0()});'
    'var c0=W((e,t)=>{x={moduleType:"trace",name:"contour"}});var c=W((e,t)=>{t.exports=c0()});'
    'var d0=W((e,t)=>{x={moduleType:"trace",name:"surface"}});var d=W((e,t)=>{t.exports=d0()});'
    "var z=W((e,t)=>{var r=a();r.register([b(),c(),d()]);t.exports=r});return z();/* end */"
)


def test_traces_after_the_last_needed_one_are_left_out() -> None:
    small = reduced(_BUNDLE)
    start, end = _BUNDLE.index("var d0"), _BUNDLE.index("var z=")
    assert small == _BUNDLE.replace(_BUNDLE[start:end], "").replace("[b(),c(),d()]", "[b(),c()]")


@pytest.mark.parametrize(
    "bundle",
    [
        "",
        "var Plotly={};",
        _BUNDLE.replace(".register([", ".add(["),
        _BUNDLE.replace('name:"contour"', 'name:"lines"'),
        _BUNDLE.replace("var d=", "var e="),
        _BUNDLE.replace("[b(),c(),d()]", "[d(),c(),b()]"),
    ],
)
def test_a_bundle_of_unknown_structure_stays_whole(bundle: str) -> None:
    assert reduced(bundle) == bundle


def test_the_installed_library_becomes_much_smaller() -> None:
    whole, small = get_plotlyjs(), library()
    assert len(small) < len(whole) / 3
    assert small.startswith("/**\n* plotly.js v") and "MIT license" in small[:200]
    assert small.rstrip().endswith(whole.rstrip()[-200:])
    assert gzip.decompress(base64.b64decode(compressed_library())).decode() == small
    assert len(compressed_library()) < 700_000


def test_figures_use_only_traces_of_the_library(rich: Path) -> None:
    figures = named_figures([ReportData(rich)]).values()
    assert {trace.type for each in figures for trace in each.figure.data} == set(TRACES)


def test_the_library_has_exactly_the_needed_kinds_of_traces(rich: Path, tab: Any) -> None:
    from bbam_ray.report.study_report import write_report

    tab.open(write_report(rich))
    kinds = tab.run("return Object.keys(Plotly.PlotSchema.get().traces)")
    assert set(TRACES) <= set(kinds)
    assert not {"pie", "surface", "scattergl", "scattermap"} & set(kinds)
