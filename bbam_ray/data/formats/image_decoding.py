"""One encoded image as an array of a fixed size; damaged and huge images are rejected.

What becomes of images that are not 8-bit grey or RGB (training, ``predict`` and ``data extract`` share
this code, and ``conversion`` says it of an image):

- Grey images with 16 or 32 bits: 0 to the largest value of their type (65535; 4095 for 12-bit TIFF;
  32767 for signed 16 bits) become 0 to 255; floats: 0 to 1. The setting ``image_range`` names another
  range. Values outside the range, or that would all become one grey level, make an image unreadable.
- Colour with 16 bits per channel: the high byte, as Pillow reads it.
- Transparent parts: on white. An image of which nothing is visible on white is unreadable.
- CMYK, palettes and other modes: Pillow's conversion to RGB; several frames or pages: the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bbam_ray.data.formats.image_range import AUTO, parse_range
from bbam_ray.errors import brief

BILINEAR = "bilinear"  # the interpolation, unless a backbone has another
MAX_PIXELS = 100_000_000  # more in one image is a mistake or an attack
_LARGE_PIXELS = 16_000_000  # larger images are decoded one at a time, to limit memory
DECODING_VERSION = 3  # increase it if the code below gives other pixels for the same file
_WHITE, _DARK = (255, 255, 255), 32
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_SIGNED = 2
_one_large = Lock()


class UnreadableImageError(Exception):
    """The bytes are not a complete image of an acceptable size; the message says why."""


class _Depth(NamedTuple):
    """The type of the values of a grey image with more than 8 bits; ``largest`` is white."""

    name: str
    largest: float
    dtype: type[np.generic] | None = None  # of the values, where Pillow's array has another


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about large or slightly damaged images; they are read or refused here.

    Warning filters belong to the process, so enter this before starting decoding threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_image(
    source: Path | BinaryIO,
    side: int,
    channels: int = 3,
    image_range: str = AUTO,
    interpolation: str = BILINEAR,
) -> np.ndarray:
    """Decode one image as (channels, side, side) uint8, upright, resized without keeping its aspect ratio.

    Args:
        source: file or open buffer.
        side: height and width of the result in pixels.
        channels: 3 for colour, 1 for grey.
        image_range: range of the values of images with 16 or 32 bits, as ``parse_range`` takes it.
        interpolation: "bilinear" or "bicubic".

    Raises:
        UnreadableImageError: not an image, truncated, larger than ``MAX_PIXELS``, or with values that
            are not in the range.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(
                    f"{image.width} x {image.height} pixels exceed the limit of {MAX_PIXELS}"
                )
            image.draft("RGB", (side, side))
            large = image.width * image.height > _LARGE_PIXELS
            with _one_large if large else nullcontext():
                converted = _converted(image, "RGB" if channels == 3 else "L", image_range)
                method = Image.Resampling[interpolation.upper()]
                resized = converted.resize((side, side), method)
                image.close()  # free its pixels before the next large image is decoded
    except UnreadableImageError:
        raise
    except Exception as error:  # damaged files make decoders raise anything
        raise UnreadableImageError(_reason(source, error)) from None
    return np.asarray(resized).reshape(side, side, channels).transpose(2, 0, 1)


def conversion(source: Path | BinaryIO, image_range: str = AUTO) -> str:
    """What ``read_image`` does to the values of an image, from its header; "" for 8-bit grey and RGB.

    An image that cannot be opened gives "" as well: ``read_image`` says why.
    """
    try:
        with Image.open(source) as image:
            return "; ".join(_conversions(image, image_range))
    except Exception:
        return ""


def darkness(conversion: str, pixels: np.ndarray) -> str:
    """An addition to ``conversion`` if a scaled image uses only the lowest eighth of its range."""
    dark = " grey, " in conversion and pixels.max() < _DARK
    return ", of which it uses less than an eighth (see the setting image_range)" if dark else ""


def _conversions(image: Image.Image, image_range: str) -> Iterator[str]:
    if depth := _depth(image):
        low, high = parse_range(image_range) or (0, depth.largest)
        yield f"{depth.name} grey, {low:.10g} to {high:.10g} became 0 to 255"
    if _is_deep_colour(image):
        yield "16 bits per channel became 8"
    if _has_alpha(image):
        yield "transparent parts on white"
    if image.mode == "CMYK":
        yield "CMYK became RGB"
    if (frames := _frames(image)) > 1:
        yield f"the first of {frames} frames"


def _converted(image: Image.Image, mode: str, image_range: str) -> Image.Image:
    """The image upright, in a color mode, with as few copies as possible."""
    depth, deep_colour = _depth(image), _is_deep_colour(image)
    if deep_colour and parse_range(image_range):
        raise UnreadableImageError(
            "16 bits per channel in colour, for which image_range is not possible; save it with 8"
        )
    ImageOps.exif_transpose(image, in_place=True)
    if depth:
        return _in_range(image, depth, image_range).convert(mode)
    if _has_alpha(image):
        return _on_white(image).convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _depth(image: Image.Image) -> _Depth | None:
    """The type of a grey image with more than 8 bits per pixel; None for all others.

    Pillow's modes do not tell it: "I" are 16 or 32 bits, with or without sign. The tags of TIFF do; the
    other formats that Pillow opens so, PNG and PPM, have 16 bits without sign.
    """
    if image.mode == "F":
        return _Depth("float", 1)
    if not image.mode.startswith("I"):
        return None
    bits = int(_tag(image, _BITS, 16))
    if _tag(image, _SAMPLE_FORMAT, 1) == _SIGNED:
        return _Depth(f"signed {bits}-bit", 2 ** (bits - 1) - 1)
    return _Depth(f"{bits}-bit", 2**bits - 1, np.uint32 if bits == 32 else None)


def _frames(image: Image.Image) -> int:
    """Number of frames or pages; 1 if those after the first are damaged, as only the first is read."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        return 1


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether a colour image, not yet decoded, has 16 bits per channel; Pillow keeps the high ones."""
    if image.mode.startswith("I") or image.mode == "F":
        return False
    if image.format == "PNG":
        return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return int(_tag(image, _BITS, 8)) > 8


def _tag(image: Image.Image, tag: int, default: int) -> int:
    """The first value of a tag of TIFF."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _in_range(image: Image.Image, depth: _Depth, image_range: str) -> Image.Image:
    """A grey image of 8 bits from one with more."""
    values = np.asarray(image)
    if depth.dtype is not None:
        values = values.view(depth.dtype)
    low, high = parse_range(image_range) or (0, depth.largest)
    least, most = float(values.min()), float(values.max())
    if not (low <= least and most <= high):  # also if a value is nan
        raise UnreadableImageError(
            f"values {least:.10g} to {most:.10g} are outside the range {low:.10g} to {high:.10g} of "
            f"{depth.name} images (see the setting image_range)"
        )
    scaled = values.astype(np.float32)
    scaled -= low
    scaled *= 255 / (high - low)
    scaled += 0.5
    grey = scaled.astype(np.uint8)
    if least < most and grey.min() == grey.max():
        raise UnreadableImageError(
            f"values {least:.10g} to {most:.10g} are a single grey level of the range {low:.10g} to "
            f"{high:.10g} of {depth.name} images (see the setting image_range)"
        )
    if (
        image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1) == 0
    ):  # 0 is white; Pillow leaves it so
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    """An image with transparent parts, on white."""
    layer = image.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return layer.convert("RGB")
    composed = Image.new("RGB", layer.size, _WHITE)
    composed.paste(layer, mask=alpha)
    if _is_uniform(composed) and not _is_uniform(layer):
        raise UnreadableImageError(
            "nothing of it is visible on white, which transparent parts are put on; save it without "
            "transparency"
        )
    return composed


def _is_uniform(image: Image.Image) -> bool:
    return all(least == most for least, most in image.getextrema())  # type: ignore[misc]


def _reason(source: Path | BinaryIO, error: Exception) -> str:
    """Why an image could not be decoded."""
    if isinstance(error, UnidentifiedImageError):
        start = _first_bytes(source)
        if not start:
            return "empty"
        if start in (b"II*\0", b"MM\0*"):
            return "a TIFF of a type that Pillow cannot read, such as 64-bit values; save it with 8 or 16"
    return brief(error, 200).split("<_io")[0].strip()


def _first_bytes(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(4)
    source.seek(0)
    return source.read(4)
