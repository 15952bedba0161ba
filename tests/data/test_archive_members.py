"""What is refused in an archive before anything of it is unpacked."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.data.download.archive_members import read_members
from bbam_ray.errors import UsageError

KINDS = ("x.zip", "x.tar", "x.tar.gz")


def packed(path: Path, entries: list[tuple[Any, bytes]]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
            for entry, content in entries:
                pack.writestr(entry, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read(archive: Path) -> dict[str, bytes | None]:
    """Content of all files by name; None for folders."""
    found: dict[str, bytes | None] = {}
    with ExitStack() as stack:
        for member in list(read_members(archive, stack)):
            content = None
            if member.open is not None:
                with member.open() as source:
                    content = source.read()
                assert len(content) == member.size
            found["/".join(member.parts)] = content
    return found


def refused(archive: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        read(archive)
    assert str(caught.value).startswith(f"{archive}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_files_and_folders_are_read_with_plain_names(name: str, tmp_path: Path) -> None:
    folder: Any = "top/sub/"
    if name != "x.zip":
        folder = tarfile.TarInfo("top/sub")
        folder.type = tarfile.DIRTYPE
    entries = [("./top//a..b", b"1" * 2000), (folder, b""), ("\u00e4.txt", b"")]
    archive = packed(tmp_path / name, entries)
    assert read(archive) == {"top/a..b": b"1" * 2000, "top/sub": None, "\u00e4.txt": b""}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "member", ["../out", "top/../../out", "/out", "C:/out", "c:out", "top\\..\\out", "top/.."]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(
    member: str, name: str, tmp_path: Path
) -> None:
    archive = packed(tmp_path / name, [("top/a", b"1"), (member, b"2")])
    refused(archive, "points outside the folder")


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK]
)
def test_a_zip_with_a_link_or_a_device_is_refused(kind: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("top/odd")
    info.external_attr = (kind | 0o777) << 16
    archive = packed(tmp_path / "x.zip", [("top/a", b"1"), (info, b"/etc/passwd")])
    refused(archive, "'top/odd' is a link or a device")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S"]
)
def test_a_tar_with_a_link_or_a_device_is_refused(kind: bytes, name: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("top/odd")
    info.type, info.linkname = kind, "a"  # even where it leads to a file of the archive
    archive = packed(tmp_path / name, [("top/a", b"1"), (info, b"")])
    refused(archive, "'top/odd' is a link or a device")


def test_a_zip_that_is_encrypted_or_packed_in_an_unbounded_way_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as pack:
        pack.writestr("top/a", b"1")
    refused(archive, "'top/a' is encrypted or uses an unusual compression")
    whole = bytearray(packed(archive, [("top/a", b"1")]).read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory of the archive
    archive.write_bytes(whole)
    refused(archive, "'top/a' is encrypted or uses an unusual compression")


def test_a_tar_header_of_any_size_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("top/a")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    with pytest.raises(tarfile.ReadError, match="a header of 2097664 bytes"):
        read(packed(tmp_path / "x.tar.gz", [(info, b"")]))


def test_a_tar_that_is_cut_within_a_header_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "x.tar", [("a", b"a" * 3000), ("b", b"b")])
    whole, second = archive.read_bytes(), 512 + 3072  # where the header of the second file begins
    for bad in (whole[: second + 100], whole[:second] + b"rubbish" * 100):
        archive.write_bytes(bad)
        with pytest.raises(tarfile.ReadError, match="it is truncated, or has data"):
            read(archive)
