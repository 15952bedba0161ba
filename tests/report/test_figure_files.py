"""Figures as files: drawn by a real browser without a network, and never over files of other origin."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bbam_ray.errors import UsageError
from bbam_ray.report.figure_files import check_figures, write_figures
from bbam_ray.report.report_data import ReportData
from bbam_ray.report.study_report import report_sections

chromium = pytest.importorskip(
    "choreographer.browsers.chromium", reason="kaleido is not installed"
).Chromium
needs_browser = pytest.mark.skipif(
    chromium.find_browser(skip_local=False) is None, reason="no Chrome or Chromium is installed"
)


@needs_browser
def test_each_figure_becomes_svg_and_pdf_and_old_ones_are_removed(
    rich: Path, tmp_path: Path
) -> None:
    figures = {f.name: f for s in report_sections(ReportData(rich)) for f in s.figures}
    chosen = {name: figures[name] for name in ("angles", "slice-margin")}
    folder = tmp_path / "figures"
    files = write_figures(folder, chosen)
    assert {f.name for f in files} == {f"{n}.{kind}" for n in chosen for kind in ("svg", "pdf")}
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF-") and len(content) > 2000
        else:
            tree = ElementTree.fromstring(content)
            assert tree.tag.endswith("svg") and tree.get("width") == "640"
            assert b"<path" in content and b"MathJax" not in content
    write_figures(folder, {"angles": figures["angles"]})
    assert {p.name for p in folder.iterdir()} == {"angles.svg", "angles.pdf", "figures.json"}


def test_the_browser_loads_only_local_files(
    monkeypatch: pytest.MonkeyPatch, rich: Path, tmp_path: Path
) -> None:
    import kaleido

    calls: list[dict[str, Any]] = []

    class Watched:
        def __init__(self, **options: Any) -> None:
            calls.append(options)

        async def __aenter__(self) -> Watched:
            return self

        async def __aexit__(self, *_: object) -> None:
            return None

        async def calc_fig(self, figure: object, opts: dict[str, Any]) -> bytes:
            return opts["format"].encode()

    monkeypatch.setattr(kaleido, "Kaleido", Watched)
    monkeypatch.setattr(chromium, "find_browser", lambda **_: "/usr/bin/chromium")
    report_figure = next(f for s in report_sections(ReportData(rich)) for f in s.figures)
    write_figures(tmp_path / "f", {"a": report_figure})
    assert (tmp_path / "f" / "a.pdf").read_text() == "pdf"
    assert len(calls) == 1  # one browser for all
    assert calls[0]["mathjax"] is False
    assert calls[0]["proxy_server"] == "http://127.0.0.1:9"
    page = kaleido.PageGenerator(mathjax=False).generate_index()
    assert "http" not in page.replace("http-equiv", "")


def test_a_folder_with_other_files_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(chromium, "find_browser", lambda **_: "/usr/bin/chromium")
    check_figures(tmp_path)  # empty
    check_figures(tmp_path / "new")
    (tmp_path / "figures.json").write_text(json.dumps({"bbam_ray_figures": ["angles.svg"]}))
    (tmp_path / "angles.svg").write_text("<svg/>")
    check_figures(tmp_path)
    (tmp_path / "thesis.svg").write_text("<svg/>")
    with pytest.raises(UsageError, match=r"did not write \(thesis\.svg\); choose another folder"):
        check_figures(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        check_figures(tmp_path / "thesis.svg")


def test_without_a_browser_or_kaleido_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(chromium, "find_browser", lambda **_: None)
    with pytest.raises(UsageError, match=r"needs Chrome or Chromium.*install"):
        check_figures(tmp_path)
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(UsageError, match=r"pip install 'bbam-ray\[figures\]'"):
        check_figures(tmp_path)


def test_the_command_refuses_before_it_writes(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from bbam_ray.cli.main import app

    study = write_study(tmp_path / "s", trials=3, labels=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    ended = CliRunner().invoke(app, ["report", str(study), "--figures", str(tmp_path / "mine")])
    assert ended.exit_code == 2
    assert not (study / "report.html").exists()
