"""Figures as SVG and PDF files, drawn by a local browser without network access."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bbam_ray.documents import write_json
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file
from bbam_ray.optional import needed
from bbam_ray.report.figures import ReportFigure, styled

FORMATS = ("svg", "pdf")
_LIST = "figures.json"  # names of the files that we wrote
_WIDTH = 640
# A proxy that never answers (port 9, discard), so that the browser reaches nothing by itself.
_NO_PROXY = "http://127.0.0.1:9"


def check_figures(folder: Path) -> None:
    """Check that figures can be written to a folder, before anything is written.

    Raises:
        UsageError: kaleido or a browser is missing, or the folder contains files of other origin.
    """
    needed("kaleido", "figures", "--figures")
    from choreographer.browsers.chromium import Chromium

    if Chromium.find_browser(skip_local=False) is None:
        raise UsageError(
            "--figures needs Chrome or Chromium, and none was found; install one (Debian, Ubuntu: apt "
            "install chromium), or run kaleido_get_chrome"
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--figures {folder}: this is a file; choose a folder")
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    unknown = sorted(present - {_LIST} - _own_files(folder))
    if unknown:
        raise UsageError(
            f"--figures {folder}: contains files that bbam-ray did not write ({unknown[0]}); choose "
            "another folder"
        )


def _own_files(folder: Path) -> set[str]:
    """Names of the files that an earlier call wrote."""
    try:
        content = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        # We remove these files later, so no path may point outside of the folder.
        return {name for name in content["bbam_ray_figures"] if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_figures(folder: Path, figures: Mapping[str, ReportFigure]) -> list[Path]:
    """Write each figure as ``<name>.svg`` and ``<name>.pdf``; files of earlier calls are replaced.

    Args:
        folder: created if it does not exist; see ``check_figures``.
        figures: by file name without suffix.

    Returns:
        The paths of the files.

    Raises:
        UsageError: see ``check_figures``, or the browser does not start.
    """
    check_figures(folder)
    files = {
        f"{name}.{format_}": (figure, format_)
        for name, figure in figures.items()
        for format_ in FORMATS
    }
    folder.mkdir(parents=True, exist_ok=True)
    old = _own_files(folder)
    # Listed before they are written, so that the next call knows the files of an interrupted one.
    write_json(folder / _LIST, {"bbam_ray_figures": sorted(old | files.keys())})
    asyncio.run(_draw(folder, files))
    for name in old - files.keys():
        (folder / name).unlink(missing_ok=True)
    write_json(folder / _LIST, {"bbam_ray_figures": sorted(files)})
    return [folder / name for name in files]


async def _draw(folder: Path, files: Mapping[str, tuple[ReportFigure, str]]) -> None:
    """Draw all files with one browser, one after the other."""
    import kaleido
    from kaleido.errors import BrowserClosedError, BrowserFailedError

    try:
        # Without mathjax=False kaleido loads MathJax from a server.
        async with kaleido.Kaleido(mathjax=False, proxy_server=_NO_PROXY) as browser:
            for name, (figure, format_) in files.items():
                content = await browser.calc_fig(_plot(figure), opts=_options(figure, format_))
                with atomic_file(folder / name) as temporary:
                    temporary.write_bytes(content)
    except (BrowserClosedError, BrowserFailedError) as error:
        raise UsageError(f"--figures: the browser did not start ({error})") from None


def _plot(figure: ReportFigure) -> dict[str, Any]:
    plot = styled(figure)
    plot.update_layout(paper_bgcolor="white", title={"text": ""})
    content: dict[str, Any] = plot.to_dict()
    return content


def _options(figure: ReportFigure, format_: str) -> dict[str, Any]:
    width = max(_WIDTH, figure.min_width)
    return {"format": format_, "width": width, "height": figure.height}
