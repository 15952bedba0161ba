"""Pictures as SVG and PDF files, drawn by a browser on this machine that reaches no network."""

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
from bbam_ray.report.drawing import Picture, styled

FORMATS = ("svg", "pdf")
_LIST = "figures.json"
_WIDTH = 640
# Port 9 of this machine discards what it gets: whatever the browser asks for by itself ends there.
_NOWHERE = "http://127.0.0.1:9"


def check_figures(folder: Path) -> None:
    """See that pictures can be written to a folder, before anything is.

    Raises:
        UsageError: kaleido or a browser is missing, or the folder holds files that are not ours.
    """
    needed("kaleido", "figures", "--figures")
    from choreographer.browsers.chromium import Chromium

    if Chromium.find_browser(skip_local=False) is None:
        raise UsageError(
            "--figures needs Chrome or Chromium, and none was found; install one (Debian, Ubuntu: apt "
            "install chromium), or run kaleido_get_chrome"
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--figures {folder}: is a file; choose a folder")
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = sorted(present - {_LIST} - _ours(folder))
    if foreign:
        raise UsageError(
            f"--figures {folder}: holds files that bbam-ray did not write ({foreign[0]}); choose another "
            "folder"
        )


def _ours(folder: Path) -> set[str]:
    """Names of the files that an earlier call wrote there."""
    try:
        content = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        # They are removed when they are no longer drawn, so a path is no name.
        return {name for name in content["bbam_ray_figures"] if Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_figures(folder: Path, pictures: Mapping[str, Picture]) -> list[Path]:
    """Write each picture as ``<name>.svg`` and ``<name>.pdf``; earlier ones of ours are replaced.

    Args:
        folder: made if it is not there; see ``check_figures``.
        pictures: by file name without suffix.

    Returns:
        The files.

    Raises:
        UsageError: see ``check_figures``, or the browser does not start.
    """
    check_figures(folder)
    names = {
        f"{name}.{kind}": (picture, kind) for name, picture in pictures.items() for kind in FORMATS
    }
    folder.mkdir(parents=True, exist_ok=True)
    old = _ours(folder)
    # Listed before they are written, so that files of an interrupted call are known as ours.
    write_json(folder / _LIST, {"bbam_ray_figures": sorted(old | names.keys())})
    asyncio.run(_draw(folder, names))
    for name in old - names.keys():
        (folder / name).unlink(missing_ok=True)
    write_json(folder / _LIST, {"bbam_ray_figures": sorted(names)})
    return [folder / name for name in names]


async def _draw(folder: Path, names: Mapping[str, tuple[Picture, str]]) -> None:
    """One browser draws all of them, one after the other."""
    import kaleido
    from kaleido.errors import BrowserClosedError, BrowserFailedError

    try:
        # Without mathjax=False kaleido loads MathJax from a server.
        async with kaleido.Kaleido(mathjax=False, proxy_server=_NOWHERE) as browser:
            for name, (picture, kind) in names.items():
                drawn = await browser.calc_fig(_as_file(picture), opts=_options(picture, kind))
                with atomic_file(folder / name) as temporary:
                    temporary.write_bytes(drawn)
    except (BrowserClosedError, BrowserFailedError) as error:
        raise UsageError(f"--figures: the browser did not start ({error})") from None


def _as_file(picture: Picture) -> dict[str, Any]:
    figure = styled(picture)
    figure.update_layout(paper_bgcolor="white", title={"text": ""})
    content: dict[str, Any] = figure.to_dict()
    return content


def _options(picture: Picture, kind: str) -> dict[str, Any]:
    width = max(_WIDTH, picture.min_width)
    return {"format": kind, "width": width, "height": picture.height}
