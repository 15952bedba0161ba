"""Malicious settings, archives, tables and images are refused, and take little memory."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import uuid
import zipfile
from pathlib import Path

import boto3
import numpy as np
import pytest
from trees import awa, images, voc2012
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.data.datasets.awa import Awa
from bbam_ray.data.datasets.images import Images, ImagesOptions
from bbam_ray.data.datasets.voc2012 import Voc2012, VocOptions
from bbam_ray.data.download.unpack import extract
from bbam_ray.documents import parse_assignments, read_yaml_mapping
from bbam_ray.errors import UsageError
from bbam_ray.report import figure_files
from bbam_ray.results.storage import Storage
from bbam_ray.results.study import check_folder

ROOT = Path(__file__).parents[2]
TAGS = (
    "!!python/object/apply:os.system ['touch sprung']",
    "!!python/object/new:os.system ['touch sprung']",
    "!!python/object/apply:subprocess.check_output [[touch, sprung]]",
    "!!python/name:os.system ''",
    "!!python/module:os ''",
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BBAM_RAY_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("tag", TAGS)
def test_python_objects_in_yaml_are_refused_wherever_it_is_read(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(f"scale: {tag}\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        read_yaml_mapping(Path("x.yaml"))
    with pytest.raises(UsageError, match="not valid YAML"):
        parse_assignments([f"scale={tag}"])
    for command in (
        ["train", "--config", "x.yaml"],
        ["train", "--set", f"scale={tag}"],
        ["tune", "--space", "x.yaml"],
        ["tune", "--set", f"scale={tag}", "--dry-run"],
        ["tune", "--max-cost", "5", "--price", "x.yaml", "--dry-run"],
    ):
        ended = CliRunner().invoke(app, command)
        assert ended.exit_code == 2 and "not valid YAML" in ended.output, ended.output
    assert not Path("sprung").exists()


def test_yaml_with_exponential_aliases_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="not valid YAML"):
        read_yaml_mapping(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_an_archive_with_a_link_or_a_device_is_not_unpacked(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        file = tarfile.TarInfo("top/a")
        file.size = 1
        archive.addfile(file, io.BytesIO(b"1"))
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = kind, "../../outside"
        archive.addfile(link)
    with pytest.raises(UsageError, match="link or a device"):
        extract(tmp_path / "x.tar", tmp_path / "to", max_bytes=10**6)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "C:/x", "a\\..\\..\\x"])
def test_an_archive_with_paths_outside_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"1")
    with pytest.raises(UsageError, match="points outside"):
        extract(tmp_path / "x.zip", tmp_path / "to", max_bytes=10**6)
    assert not (tmp_path / "to").exists()


def test_an_archive_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    """A header that declares a terabyte."""
    header = tarfile.TarInfo("top/zeros")
    header.size = 1 << 40
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(UsageError, match="unpacks to more than"):
        extract(tmp_path / "x.tar", tmp_path / "to", max_bytes=1 << 34)
    assert not (tmp_path / "to").exists()


@pytest.fixture()
def secret(tmp_path: Path) -> Path:
    """An image outside the data folder."""
    from PIL import Image

    path = tmp_path / "elsewhere" / "secret.jpg"
    path.parent.mkdir()
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(path)
    return path


def image_folder(root: Path, name: str) -> Path:
    """A folder of images whose table contains ``name`` in its last row."""
    images(root, count=20)
    table = root / "labels.csv"
    lines = table.read_text().splitlines()
    last = ",".join([name, *lines[-1].split(",")[1:]])
    table.write_text("\n".join([*lines, last]) + "\n")
    return root


@pytest.mark.parametrize("name", ["../../etc/passwd", "../../elsewhere/secret.jpg", "/etc/passwd"])
def test_a_path_outside_the_folder_in_a_table_is_refused(
    name: str, secret: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not a path inside"):
        Images().check(ImagesOptions(image_size=32), image_folder(tmp_path / "own", name))


@pytest.mark.parametrize("depth", ["", "deep/"])
def test_a_link_out_of_the_folder_needs_links_follow(
    depth: str, secret: Path, tmp_path: Path
) -> None:
    root = image_folder(tmp_path / "own", f"{depth}x.jpg")
    if depth:
        (root / "images" / "deep").symlink_to(secret.parent)
        secret.rename(secret.with_name("x.jpg"))
    else:
        (root / "images" / "x.jpg").symlink_to(secret)
    for call in (
        lambda: Images().check(ImagesOptions(image_size=32), root),
        lambda: Images().load(ImagesOptions(image_size=32), root, "train"),
    ):
        with pytest.raises(UsageError, match=r"x\.jpg .* to a file outside .*links=follow"):
            call()
    Images().check(ImagesOptions(image_size=32, links="follow"), root)


def test_paths_outside_the_folder_in_published_lists_are_refused(
    secret: Path, tmp_path: Path
) -> None:
    voc, animals = voc2012(tmp_path / "voc"), awa(tmp_path / "awa")
    for path in (voc / "ImageSets" / "Main").glob("*train.txt"):
        lines = path.read_text().splitlines()
        first = lines[0].split()
        lines[0] = " ".join(["../../elsewhere/secret", *first[1:]])
        path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="a file outside"):
        Voc2012().check(VocOptions(image_size=32), voc)
    for name in ("classes.txt", "trainclasses.txt"):
        text = (animals / name).read_text()
        animal = (animals / "trainclasses.txt").read_text().split()[0]
        (animals / name).write_text(text.replace(animal, "../../elsewhere"))
    with pytest.raises(UsageError, match="a file outside"):
        Awa().check(Awa.Options(image_size=32), animals)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", ".hidden", "", "a\n", "x" * 101])
def test_a_path_is_refused_as_the_name_of_a_study(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is invalid"):
        check_folder(tmp_path, "digits", name, resume=False)
    ended = CliRunner().invoke(
        app, ["train", "--dataset", f"../{name}", "--results", str(tmp_path)]
    )
    assert ended.exit_code == 2 and not list(tmp_path.iterdir())


def test_paths_in_a_list_of_figure_files_are_ignored(tmp_path: Path) -> None:
    listed = {"bbam_ray_figures": ["a.svg", "../x", "/etc/passwd", "b/c"]}
    (tmp_path / figure_files._LIST).write_text(json.dumps(listed))
    assert figure_files._own_files(tmp_path) == {"a.svg"}


def test_a_key_with_dots_on_object_storage_is_not_fetched(
    s3_server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """A key may contain "..", which would be the parent folder on a disk."""
    base, uri = uuid.uuid4().hex, "s3://results"
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    keys = ["study.json", "../../../../sprung", "checkpoints/../../../sprung"]
    for key in keys:
        client.put_object(Bucket="results", Key=f"{base}/digits/x/{key}", Body=b"{}")
    try:
        with pytest.raises(UsageError, match="is outside its folder"):
            Storage(f"{uri}/{base}", reads=True).fetch("x")
    finally:
        for key in keys:
            client.delete_object(Bucket="results", Key=f"{base}/digits/x/{key}")
    assert not list(tmp_path.rglob("sprung"))
