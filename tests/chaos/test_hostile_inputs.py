"""Settings, archives, tables and images made by somebody who means harm: refused, within little memory."""

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
def test_objects_in_yaml_are_refused_wherever_it_is_read(
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


def test_yaml_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="not valid YAML"):
        read_yaml_mapping(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_an_archive_with_a_link_or_a_device_is_refused_whole(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as pack:
        good = tarfile.TarInfo("top/a")
        good.size = 1
        pack.addfile(good, io.BytesIO(b"1"))
        evil = tarfile.TarInfo("top/link")
        evil.type, evil.linkname = kind, "../../outside"
        pack.addfile(evil)
    with pytest.raises(UsageError, match="link or a device"):
        extract(tmp_path / "x.tar", tmp_path / "to", max_bytes=10**6)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "C:/x", "a\\..\\..\\x"])
def test_an_archive_whose_names_lead_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as pack:
        pack.writestr(name, b"1")
    with pytest.raises(UsageError, match="leads out"):
        extract(tmp_path / "x.zip", tmp_path / "to", max_bytes=10**6)
    assert not (tmp_path / "to").exists()


def test_an_archive_of_an_absurd_size_is_refused_by_what_it_announces(tmp_path: Path) -> None:
    """A terabyte of zeros, of which the archive has a header only."""
    header = tarfile.TarInfo("top/zeros")
    header.size = 1 << 40
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(UsageError, match="unpacks to more than"):
        extract(tmp_path / "x.tar", tmp_path / "to", max_bytes=1 << 34)
    assert not (tmp_path / "to").exists()


@pytest.fixture()
def secret(tmp_path: Path) -> Path:
    """An image that lies beside the data, not in it."""
    from PIL import Image

    path = tmp_path / "elsewhere" / "secret.jpg"
    path.parent.mkdir()
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(path)
    return path


def own(root: Path, name: str) -> Path:
    """A folder of a user's images whose table ends with a name."""
    images(root, count=20)
    table = root / "labels.csv"
    first = table.read_text().splitlines()
    last = ",".join([name, *first[-1].split(",")[1:]])
    table.write_text("\n".join([*first, last]) + "\n")
    return root


@pytest.mark.parametrize("name", ["../../etc/passwd", "../../elsewhere/secret.jpg", "/etc/passwd"])
def test_a_name_in_a_table_does_not_lead_out_of_the_folder(
    name: str, secret: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not a path inside"):
        Images().check(ImagesOptions(image_size=32), own(tmp_path / "own", name))


@pytest.mark.parametrize("depth", ["", "deep/"])
def test_nor_does_a_link_unless_its_user_says_so(depth: str, secret: Path, tmp_path: Path) -> None:
    root = own(tmp_path / "own", f"{depth}x.jpg")
    if depth:
        (root / "images" / "deep").symlink_to(secret.parent)
        secret.rename(secret.with_name("x.jpg"))
    else:
        (root / "images" / "x.jpg").symlink_to(secret)
    for call in (
        lambda: Images().check(ImagesOptions(image_size=32), root),
        lambda: Images().load(ImagesOptions(image_size=32), root, "train"),
    ):
        with pytest.raises(UsageError, match=r"x\.jpg leads out of .*links=follow"):
            call()
    Images().check(ImagesOptions(image_size=32, links="follow"), root)


def test_nor_do_the_lists_of_published_data_sets(secret: Path, tmp_path: Path) -> None:
    voc, animals = voc2012(tmp_path / "voc"), awa(tmp_path / "awa")
    for path in (voc / "ImageSets" / "Main").glob("*train.txt"):
        lines = path.read_text().splitlines()
        first = lines[0].split()
        lines[0] = " ".join(["../../elsewhere/secret", *first[1:]])
        path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="leads out of"):
        Voc2012().check(VocOptions(image_size=32), voc)
    for name in ("classes.txt", "trainclasses.txt"):
        text = (animals / name).read_text()
        animal = (animals / "trainclasses.txt").read_text().split()[0]
        if name == "classes.txt":
            (animals / name).write_text(text.replace(animal, "../../elsewhere"))
        else:
            (animals / name).write_text(text.replace(animal, "../../elsewhere"))
    with pytest.raises(UsageError, match="leads out of"):
        Awa().check(Awa.Options(image_size=32), animals)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", ".hidden", "", "a\n", "x" * 101])
def test_a_study_is_named_by_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not possible"):
        check_folder(tmp_path, "digits", name, resume=False)
    ended = CliRunner().invoke(
        app, ["train", "--dataset", f"../{name}", "--results", str(tmp_path)]
    )
    assert ended.exit_code == 2 and not list(tmp_path.iterdir())


def test_a_list_of_figures_names_no_file_elsewhere(tmp_path: Path) -> None:
    listed = {"bbam_ray_figures": ["a.svg", "../x", "/etc/passwd", "b/c"]}
    (tmp_path / figure_files._LIST).write_text(json.dumps(listed))
    assert figure_files._ours(tmp_path) == {"a.svg"}


def test_a_file_on_object_storage_is_not_fetched_to_elsewhere(
    s3_server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Keys are no paths: one may hold two dots, which on a disk lead upwards."""
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
