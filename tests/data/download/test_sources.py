"""What publishers offer, and a data set fetched and unpacked from a server."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.data import DATASETS
from bbam_ray.data.download import sources as sources
from bbam_ray.data.download.http import RemoteFile
from bbam_ray.data.download.sources import Publication, download, publications
from bbam_ray.errors import UsageError


@pytest.fixture
def tiny(publisher: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server with a small zip, offered as the data set 'tiny'."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as pack:
        pack.writestr("images/a.jpg", b"not really")
    publisher.body = packed.getvalue()
    file = RemoteFile(publisher.url, "tiny.zip", md5=hashlib.md5(publisher.body).hexdigest())
    offer = Publication("page", "terms", {"images": file}, "inside", "inside/images", 10**6)
    monkeypatch.setattr(sources, "publications", lambda: {"tiny": offer})
    return publisher


def test_the_data_sets_that_can_be_downloaded() -> None:
    assert sorted(publications()) == ["awa", "coco2014", "voc2012"]


@pytest.mark.parametrize("name", publications())
def test_every_published_file_has_an_https_address_and_a_digest(name: str) -> None:
    publication = publications()[name]
    assert publication.page.startswith("https://") and publication.terms.endswith(".")
    for file in publication.archives.values():
        assert file.url.startswith("https://") and file.url.endswith(f"/{file.name}")
        assert (file.sha256 and file.size) or name == "awa"
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256 or "0" * 64)
        assert re.fullmatch(r"[0-9a-f]{32}", file.md5 or "0" * 32)
        assert (file.size or 0) < publication.max_bytes


@pytest.mark.parametrize("name", publications())
def test_a_published_data_set_lands_where_it_is_looked_for_by_default(name: str) -> None:
    module = __import__(type(DATASETS[name]).__module__, fromlist=["DEFAULT_DIR"])
    assert Path("data") / publications()[name].data_dir == module.DEFAULT_DIR


def test_a_data_set_is_fetched_and_unpacked_once(tiny: Any, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    size = len(tiny.body)
    found = download("tiny", tmp_path, lambda what, done, total: seen.append((what, done, total)))
    assert found == tmp_path / "inside" / "images"
    assert (found / "a.jpg").read_bytes() == b"not really"
    assert seen == [
        ("download tiny.zip", 0, size),
        ("download tiny.zip", size, size),
        ("unpack tiny.zip", 10, 10),
    ]
    (tmp_path / "tiny.zip").unlink()  # its user needs the space
    assert download("tiny", tmp_path) == found
    assert len(tiny.asked) == 1
    assert os.listdir(tmp_path) == ["inside"]


def test_a_data_set_whose_files_were_removed_is_fetched_again(tiny: Any, tmp_path: Path) -> None:
    found = download("tiny", tmp_path)
    (found / "a.jpg").unlink()
    found.rmdir()
    assert (download("tiny", tmp_path) / "a.jpg").read_bytes() == b"not really"
    assert len(tiny.asked) == 1  # from the archive, which is still there


def test_a_folder_of_the_same_name_is_not_taken_for_the_data_set(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "inside" / "images").mkdir(parents=True)
    with pytest.raises(UsageError, match="inside/images exists already"):
        download("tiny", tmp_path)


def test_an_unknown_data_set_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'voc2021'.*did you mean 'voc2012'\?"):
        download("voc2021", tmp_path / "data")
    assert not (tmp_path / "data").exists()
