"""The published cases of images, VOC, COCO and ARFF, by the command that users run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bbam_ray.cli.main import app

CASES = Path(__file__).parents[3] / "shared" / "cases"
#: case, data set, further settings, exit code, and words of the answer
EXPECTED = [
    ("img_modes", "images", (), 2, ("int32.tif", "single grey level", "float255.tif", "0 to 255")),
    ("img_modes", "images", ("unreadable=skip",), 0, ("16-bit grey, 0 to 65535 became", "gray16")),
    ("img_modes", "images", ("unreadable=skip",), 0, ("less than an eighth", "gray12in16.png")),
    ("img_appledouble_unlabeled", "images", (), 0, ('"train": 26', '"known": 16')),
    ("coco_strid", "coco2014", (), 0, ("person", '"train": [14, 9, 7]')),
    ("coco_strid", "coco", (), 0, ("person", '"train": [14, 9, 7]')),
    ("coco_subfolder", "coco2014", (), 0, ("person", '"train": [14, 9, 7]')),
    ("coco_subfolder", "coco", (), 0, ("batch1", '"train": [14, 9, 7]')),
    ("coco_orphan", "coco2014", (), 2, ("instances_train2014.json", "image_id 99999")),
    ("coco_orphan", "coco", (), 2, ("instances_train2014.json", "image_id 99999")),
    ("voc_missing", "voc2012", (), 2, ("cow_train.txt", "--dataset voc")),
    ("voc_missing", "voc", (), 0, ("aeroplane", "19 labels from ImageSets/Main")),
    ("meka_Music", "features", (), 0, ("6 labels by -C 6", "angry-aggresive")),
    ("mekax_missing", "features", (), 2, ("all labels of all 592 rows are missing (?)",)),
    ("arff_float01", "features", (), 0, ("c1", '"train": 24')),
    ("arff_truefalse", "features", (), 0, ("c1", '"train": 24')),
    ("arff_trailing_comma", "features", (), 0, ("c1", '"train": 24')),
]


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
@pytest.mark.parametrize(("case", "dataset", "settings", "code", "words"), EXPECTED)
def test_a_case_is_read_right_or_refused(
    case: str, dataset: str, settings: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    arguments = ["data", "info", "--dataset", dataset, "--data-dir", str(CASES / case), "--json"]
    if dataset != "features":
        settings = (*settings, "image_size=32")
    for assignment in settings:
        arguments += ["--set", assignment]
    ended = CliRunner().invoke(app, [*arguments, "--labeled-fraction", "0.5"])
    assert ended.exit_code == code, ended.output
    assert [word for word in words if word not in ended.output] == [], ended.output
    if code == 0:
        assert json.loads(ended.stdout)["counts"]["train"] > 0
