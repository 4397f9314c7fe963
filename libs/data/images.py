"""One image: from file or array to a small gray square. Everything that decodes untrusted bytes is here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from libs.core.errors import InvalidInput, TooLarge

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
MAX_PIXELS = 64 * 2**20
"""No radiograph has more; a file of a few kilobytes that claims more is a decompression bomb."""


@dataclass(frozen=True)
class Form:
    """What a file holds before it is made square and gray: pixels, channels of each, bits of each channel."""

    height: int
    width: int
    channels: int
    bits: int


_FORMATS = ("JPEG", "PNG")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def check_size(size: int) -> None:
    """Raises InvalidInput unless images can be scaled to `size` pixels a side."""
    if not 8 <= size <= 1024:
        raise InvalidInput(f"Images are scaled to 8 to 1024 pixels a side, not {size}.")


def is_image(path: Path) -> bool:
    """Whether the file begins as JPEG or PNG files do, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(8).startswith(_BEGINNINGS)


def load_image(path: Path, *, size: int) -> npt.NDArray[np.uint8]:
    """The radiograph of a JPEG or PNG file. Shape (size, size), 0 is black.

    Read as its content says, not its name. Raises InvalidInput for anything that is not a whole image of
    these two formats, and TooLarge, before a pixel is decoded, for one that claims more than MAX_PIXELS.
    """
    check_size(size)
    with _opened(path) as image:
        return _to_square(_to_gray(image), size=size)


def measure_image(path: Path) -> Form:
    """The form of a JPEG or PNG file, from its header. Raises what `load_image` does."""
    with _opened(path) as image:
        bits = 16 if image.mode in _GRAY_16 else 1 if image.mode == "1" else 8
        channels = 3 if image.mode == "P" else len(image.getbands())
        return Form(height=image.height, width=image.width, channels=channels, bits=bits)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors from inside carry the file's name as a note, for the owner's own screen."""
    try:
        yield
    except (InvalidInput, TooLarge) as error:
        error.add_note(f"file: {path}")
        raise


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, lower limit follows
            with Image.open(path, formats=_FORMATS) as image:
                check_pixels(image.width * image.height)
                yield image
    except Image.DecompressionBombError:
        raise too_large() from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow reports a broken file as any of these, by format and by where the damage is.
        raise InvalidInput(
            "An image cannot be read: it is damaged, cut short, or neither JPEG nor PNG. "
            "Export it again or remove it."
        ) from error


def square_from_array(pixels: npt.NDArray[np.uint8], *, size: int) -> npt.NDArray[np.uint8]:
    """An 8-bit image (H, W) or (H, W, 3) as a gray square. Shape (size, size)."""
    if pixels.shape == (size, size):
        return pixels
    return _to_square(Image.fromarray(pixels).convert("L"), size=size)


def _to_gray(image: Image.Image) -> Image.Image:
    """8-bit gray. 16-bit files keep their upper 8 bits, which Pillow's own conversion would clip instead."""
    if image.mode in _GRAY_16:
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(wide, 0, 65535) >> 8).astype(np.uint8))
    return image.convert("L")


def _to_square(image: Image.Image, *, size: int) -> npt.NDArray[np.uint8]:
    """The largest centred square, scaled with anti-aliasing.

    Cropped, never squashed: in the public pediatric set the aspect ratio alone tells the classes apart with
    an AUC of 0.87, and squashing would let a model read it from the shape of the ribs.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    # Two steps, because a filter with a box still mixes in pixels from just outside of it.
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def check_pixels(pixels: int) -> None:
    """Raises TooLarge for more pixels than a radiograph has."""
    if pixels > MAX_PIXELS:
        raise too_large()


def too_large() -> TooLarge:
    """What to say of an image larger than any radiograph."""
    return TooLarge(
        f"An image claims more than {MAX_PIXELS // 2**20} million pixels. It is not a radiograph; remove it."
    )
