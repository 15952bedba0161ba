"""Files on object storage (s3://, gs://, ...), by their names below a folder."""

from __future__ import annotations

import io
import shutil
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pyarrow import fs

from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file
from bbam_ray.results.redaction import redacted


class RemoteFiles:
    """A folder on object storage; its methods raise an OSError if the storage does not answer.

    Args:
        uri: of the folder.

    Raises:
        UsageError: an unknown scheme, or no access.
    """

    def __init__(self, uri: str) -> None:
        self.uri = redacted(uri)  # without secrets, for messages
        try:
            self._files, self._base = fs.FileSystem.from_uri(uri)
            self._files.get_file_info(self._base)
        except (OSError, ValueError, ImportError) as error:
            raise UsageError(f"{self.uri}: cannot be reached ({short(error)})") from None

    def folders(self, parent: str) -> list[str]:
        """Names of the folders in a folder; "" is the folder of the URI."""
        path = f"{self._base}/{parent}".rstrip("/")
        infos = self._files.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return [self._name(i, self._base) for i in infos if i.type == fs.FileType.Directory]

    def listing(self, folder: str) -> dict[str, list[int]]:
        """Size and time of each file in a folder and in those below, without hidden files.

        Raises:
            UsageError: a file has a name that is not usable.
        """
        base = f"{self._base}/{folder}"
        infos = self._files.get_file_info(fs.FileSelector(base, recursive=True))
        study = folder.rsplit("/", 1)[-1]
        try:
            listing = {
                self._name(info, base): [info.size, info.mtime_ns]
                for info in infos
                if info.type == fs.FileType.File and not info.base_name.startswith(".")
            }
        except UnicodeDecodeError:
            raise UsageError(
                f"{self.uri}: study '{study}' has a file with an unreadable name; remove it there"
            ) from None
        if outside := [name for name in listing if ".." in PurePosixPath(name).parts]:
            raise UsageError(
                f"{self.uri}: the file '{outside[0]}' of study '{study}' is outside its folder; do "
                "not use this study"
            )
        return listing

    @staticmethod
    def _name(info: fs.FileInfo, base: str) -> str:
        name: str = info.path[len(base) + 1 :]
        return name

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none."""
        path = f"{self._base}/{name}"
        if self._files.get_file_info(path).type != fs.FileType.File:
            return None
        with self._files.open_input_stream(path) as stream:
            content: bytes = stream.read()
        return content

    def download(self, name: str, target: Path) -> None:
        """Write a file to a local path, atomically."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as temporary:
            fs.copy_files(
                f"{self._base}/{name}",
                str(temporary),
                source_filesystem=self._files,
                destination_filesystem=fs.LocalFileSystem(),
            )

    def write(self, name: str, content: BinaryIO | bytes) -> None:
        """Replace a file."""
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        with self._files.open_output_stream(f"{self._base}/{name}") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)

    def delete(self, name: str) -> None:
        """Delete a file."""
        self._files.delete_file(f"{self._base}/{name}")


def short(error: BaseException) -> str:
    """An error in a few words, without secrets."""
    return redacted(" ".join(str(error).split()))[:200]
