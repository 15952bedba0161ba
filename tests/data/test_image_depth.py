"""Images of every depth and mode become the same ramp, or are listed with the reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bbam_ray.data import DATASETS
from bbam_ray.data.cache.images import cached_images
from bbam_ray.data.datasets.image_base import image_files
from bbam_ray.data.datasets.images import Images, ImagesOptions
from bbam_ray.data.formats.image_decoding import UnreadableImageError, conversion, read_image
from bbam_ray.data.formats.image_sources import ImageFiles
from bbam_ray.data.prediction.inputs import find_chunks
from bbam_ray.errors import UsageError

CASES = Path(__file__).parents[3] / "shared" / "cases" / "img_modes"
RAMP = np.tile(np.linspace(0, 1, 32), (32, 1))  # dark on the left, bright on the right
GREY = np.round(RAMP * 255)


def tiff(values: np.ndarray, *, big: bool = False, white_is_zero: bool = False) -> bytes:
    """A TIFF with the values as they are, of any type that numpy has."""
    order, sign = (">", b"MM\0*") if big else ("<", b"II*\0")
    values = values.astype(values.dtype.newbyteorder(order))
    bits, kind = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, int(not white_is_zero))]
    tags += [(273, 8), (277, 1), (278, height), (279, values.nbytes), (339, kind)]
    directory = struct.pack(order + "H", len(tags))
    for tag, value in tags:
        directory += struct.pack(order + "HHLL", tag, 4, 1, value)
    return (
        sign
        + struct.pack(order + "L", 8 + values.nbytes)
        + values.tobytes()
        + directory
        + b"\0\0\0\0"
    )


def deep_png(values: np.ndarray, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of uint16 values (H, W, C)."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">LLBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in parts:
        content += struct.pack(">L", len(data)) + name + data
        content += struct.pack(">L", zlib.crc32(name + data))
    return content


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(dtype: type[np.generic], top: float) -> np.ndarray:
    return (
        (RAMP * top).round().astype(dtype)
        if np.dtype(dtype).kind in "iu"
        else (RAMP * top).astype(dtype)
    )


def read(content: bytes, image_range: str = "auto") -> np.ndarray:
    return read_image(io.BytesIO(content), 32, image_range=image_range).astype(int)


def plain(mode: str = "L") -> Image.Image:
    return Image.fromarray(GREY.astype(np.uint8)).convert(mode)


U16 = ramp(np.uint16, 65535)
ALPHA = np.full((32, 32), 255, np.uint8)
DEEP = {
    "uint16 png": saved(Image.fromarray(U16), "PNG"),
    "uint16 tiff": tiff(U16),
    "uint16 tiff of a big-endian machine": tiff(U16, big=True),
    "uint16 tiff of Pillow": saved(Image.fromarray(U16), "TIFF"),
    "uint16 tiff compressed": saved(Image.fromarray(U16), "TIFF", compression="tiff_lzw"),
    "uint16 tiff, 0 is white": tiff(65535 - U16, white_is_zero=True),
    "int16 tiff": tiff(ramp(np.int16, 2**15 - 1)),
    "int16 tiff of a big-endian machine": tiff(ramp(np.int16, 2**15 - 1), big=True),
    "uint32 tiff": tiff(ramp(np.uint32, 2**32 - 1)),
    "int32 tiff": tiff(ramp(np.int32, 2**31 - 1)),
    "int32 tiff of a big-endian machine": tiff(ramp(np.int32, 2**31 - 1), big=True),
    "float32 tiff": tiff(ramp(np.float32, 1)),
    "float32 tiff of a big-endian machine": tiff(ramp(np.float32, 1), big=True),
    "16-bit pgm": b"P5 32 32 65535\n" + U16.astype(">u2").tobytes(),
    "12-bit pgm": b"P5 32 32 4095\n" + ramp(np.uint16, 4095).astype(">u2").tobytes(),
}
COLOUR = {
    "16-bit rgb png": deep_png(np.repeat(U16[..., None], 3, 2), 2),
    "16-bit rgba png": deep_png(
        np.concatenate([np.repeat(U16[..., None], 3, 2), np.full((32, 32, 1), 65535)], 2), 6
    ),
    "16-bit la png": deep_png(np.stack([U16, np.full((32, 32), 65535)], 2), 4),
}
MODES = {
    "grey png": saved(plain(), "PNG"),
    "rgb png": saved(plain("RGB"), "PNG"),
    "la png": saved(plain("LA"), "PNG"),
    "rgba png": saved(plain("RGBA"), "PNG"),
    "palette png": saved(plain().quantize(256), "PNG"),
    "bmp": saved(plain("RGB"), "BMP"),
    "gif": saved(plain(), "GIF"),
    "animated gif": saved(plain(), "GIF", save_all=True, append_images=[Image.new("L", (32, 32))]),
    "webp": saved(plain("RGB"), "WEBP", lossless=True),
    "webp with alpha": saved(plain("RGBA"), "WEBP", lossless=True),
    "cmyk tiff": saved(plain("RGB").convert("CMYK"), "TIFF"),
    "cmyk jpeg": saved(plain("RGB").convert("CMYK"), "JPEG", quality=100),
    "two pages": saved(plain(), "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))]),
}


@pytest.mark.parametrize("name", [*DEEP, *COLOUR, *MODES])
def test_a_ramp_of_any_kind_is_the_same_ramp(name: str) -> None:
    content = (DEEP | COLOUR | MODES)[name]
    tolerance = 4 if "jpeg" in name or "palette" in name else 1
    pixels = read(content)
    assert pixels.shape == (3, 32, 32) and np.abs(pixels - GREY).max() <= tolerance


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (DEEP, "grey, 0 to"),
        (COLOUR, "16 bits per channel became 8"),
        ({name: MODES[name] for name in ("cmyk tiff", "cmyk jpeg")}, "CMYK became RGB"),
        ({name: MODES[name] for name in ("animated gif", "two pages")}, "the first of 2 frames"),
        ({name: MODES[name] for name in ("la png", "rgba png")}, "transparent parts on white"),
    ],
)
def test_what_was_done_is_said(contents: dict[str, bytes], words: str) -> None:
    for content in contents.values():
        assert words in conversion(io.BytesIO(content))


def test_nothing_is_said_of_plain_images() -> None:
    for name in ("grey png", "rgb png", "bmp", "webp"):
        assert conversion(io.BytesIO(MODES[name])) == ""
    assert conversion(io.BytesIO(b"no image")) == ""


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (ramp(np.float32, 255), "0 to 255 are outside the range 0 to 1 of float"),
        (RAMP.astype(np.float32) - 0.5, "-0.5 to 0.5 are outside the range"),
        (np.where(RAMP > 0.9, np.nan, RAMP).astype(np.float32), "nan to nan are outside"),
        (np.where(RAMP > 0.9, np.inf, RAMP).astype(np.float32), "0 to inf are outside"),
        (
            ramp(np.int16, 99) - np.int16(1),
            "-1 to 98 are outside the range 0 to 32767 of signed 16",
        ),
        (ramp(np.int32, 65535), "a single grey level of the range 0 to 2147483647"),
        (ramp(np.uint32, 65535), "a single grey level of the range 0 to 4294967295"),
        (ramp(np.uint16, 100), "a single grey level of the range 0 to 65535 of 16-bit"),
        (ramp(np.float32, 1e-3), "a single grey level of the range 0 to 1 of float"),
    ],
)
def test_values_that_do_not_fit_are_listed_with_the_reason(values: np.ndarray, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read(tiff(values))
    assert "image_range" in str(caught.value)
    low, high = np.nanmin(values), np.nanmax(values)
    if np.isfinite([low, high]).all() and not np.isnan(values).any():
        assert np.abs(read(tiff(values), f"{low},{high}") - GREY).max() <= 2


def test_a_type_that_cannot_be_read_is_named() -> None:
    for dtype in (np.float64, np.uint64):
        with pytest.raises(UnreadableImageError, match="a TIFF of a type that Pillow cannot read"):
            read(tiff(ramp(dtype, 1)))


def test_a_dark_image_is_named_as_such(tmp_path: Path) -> None:
    Image.fromarray(ramp(np.uint16, 4095)).save(tmp_path / "a.png")
    rows = cached_images("set", ImageFiles([tmp_path / "a.png"], tmp_path), 32)
    ((note, entry),) = rows.metadata["notes"].items()
    assert "less than an eighth" in note and entry == [1, 0]
    assert rows[0].max() == 16
    bright = cached_images("set", ImageFiles([tmp_path / "a.png"], tmp_path), 32, "0,4095")
    assert bright[0].max() == 255 and "eighth" not in str(bright.metadata["notes"])


def layer(grey: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(a.astype(np.uint8)) for a in (grey, alpha)])


def test_transparent_parts_are_white() -> None:
    black, half = np.zeros((32, 32)), np.where(RAMP < 0.5, 0, 255)
    for image in (layer(black, half), layer(black, half).convert("RGBA")):
        pixels = read(saved(image, "PNG"))
        assert pixels[:, :, :16].min() == 255 and pixels[:, :, 16:].max() == 0
    grey = plain()
    assert read(saved(grey, "PNG", transparency=0))[:, :, 0].min() == 255
    keyed = deep_png(U16[..., None], 0, (b"tRNS", struct.pack(">H", 0)))
    assert read(keyed)[:, :, 0].min() == 255 and read(keyed)[:, :, 1].max() < 20
    half_seen = saved(plain().quantize(8), "PNG", transparency=bytes([0, 128] + [255] * 6))
    assert conversion(io.BytesIO(half_seen)) == "transparent parts on white"
    palette = saved(plain().quantize(8), "GIF", transparency=0)
    assert conversion(io.BytesIO(palette)) == "transparent parts on white"


def test_an_image_that_white_hides_is_listed() -> None:
    hidden = layer(np.full((32, 32), 255), np.where(RAMP < 0.5, 0, 255))
    with pytest.raises(UnreadableImageError, match="nothing of it is visible on white"):
        read(saved(hidden, "PNG"))
    assert read(saved(Image.new("RGBA", (9, 9), (255, 255, 255, 0)), "PNG")).min() == 255


def test_deep_images_are_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "TIFF"):
        pixels = read(saved(Image.fromarray(U16), kind, exif=exif))
        assert np.abs(pixels - GREY.T).max() <= 1


def test_a_range_is_not_applied_to_colour_without_saying_so() -> None:
    with pytest.raises(UnreadableImageError, match="image_range is not possible"):
        read(COLOUR["16-bit rgb png"], "0,4095")


@pytest.mark.parametrize("text", ["0-255", "5", "1,0", "0,nan", "0,1,2", "a,b"])
def test_an_impossible_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"image_range = .* is invalid: expected"):
        ImagesOptions.build({"image_range": text}, "--set")


def folder(root: Path) -> Path:
    """24 deep or unusual images with labels, and hidden files beside them."""
    (root / "images").mkdir(parents=True)
    lines = ["file_name,cat,dog"]
    for row, content in enumerate((DEEP | COLOUR | MODES).values()):
        (root / "images" / f"{row:02d}.png").write_bytes(content)
        lines.append(f"{row:02d}.png,{row % 2},{row // 2 % 2}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    for name in ("a.png", "._a.png", ".thumbs/a.png", "__MACOSX/b.png"):
        (root / "unlabeled" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "unlabeled" / name).write_bytes(MODES["grey png"] if name == "a.png" else b"\0\5")
    return root


def test_training_and_prediction_read_the_same_and_say_so(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    options = ImagesOptions(image_size=32)
    parts = [Images().load(options, root, part) for part in ("train", "test")]
    by_name = {
        name: pixels
        for samples in parts
        for name, pixels in zip(samples.names or (), samples.inputs[:], strict=True)
    }
    notes = " ".join(note for samples in parts for note in samples.notes)
    assert "16-bit grey, 0 to 65535 became 0 to 255" in notes and "images/00.png" in notes
    (chunk,) = find_chunks(root / "images", (3, 32, 32), ["a"])
    assert chunk.encoded_images
    for batch in chunk.batches(100):
        assert batch.problems == [None] * len(batch.names)
        for name, pixels, note in zip(batch.names, batch.inputs, batch.notes, strict=True):
            np.testing.assert_array_equal(pixels, by_name[f"images/{name}"])
            assert note == (conversion(root / "images" / name) or None)


def test_rows_of_parquet_have_notes_as_well(tmp_path: Path) -> None:
    table = pa.table({"image": [DEEP["uint16 png"], MODES["rgb png"], b"junk"]})
    pq.write_table(table, tmp_path / "x.parquet")
    (chunk,) = find_chunks(tmp_path / "x.parquet", (3, 32, 32), ["a"])
    (batch,) = chunk.batches(9)
    assert batch.notes == ["16-bit grey, 0 to 65535 became 0 to 255", None, None]
    assert batch.problems[2] and batch.problems[:2] == [None, None]


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    assert image_files(root / "unlabeled") == [root / "unlabeled" / "a.png"]
    samples = Images().load(ImagesOptions(image_size=32), root, "train")
    assert sum(name.startswith("unlabeled/") for name in samples.names or ()) == 1
    (chunk,) = find_chunks(root / "unlabeled", (3, 32, 32), ["a"])
    assert chunk.count == 1
    assert Images().unused(ImagesOptions(), root) == []


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")
def test_the_published_case_of_modes() -> None:
    options = DATASETS["images"].Options.build({"image_size": 64, "unreadable": "skip"}, "test")
    expected = np.tile(np.linspace(0, 255, 64), (64, 1))
    seen = set()
    for part in ("train", "test"):
        samples = DATASETS["images"].load(options, CASES, part)  # type: ignore[arg-type]
        for name, pixels in zip(samples.names or (), samples.inputs[:], strict=True):
            seen.add(Path(name).stem)
            kind = Path(name).stem
            if kind == "gray12in16":
                assert pixels.max() == 16
            elif kind not in ("bit", "anim", "exif6", "rgba", "la", "logo_black_on_transparent"):
                assert np.abs(pixels - expected).max() < 20, name
            assert pixels.min() < pixels.max(), name
    assert len(seen) == 18 and not {"int32", "float255"} & seen
