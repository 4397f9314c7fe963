"""One image file to one gray square."""

import contextlib
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libs.core.errors import InvalidInput, TooLarge
from libs.data import images
from libs.data.images import load_image, square_from_array


def test_an_image_is_cropped_to_its_centre_and_not_squashed(tmp_path: Path) -> None:
    pixels = np.zeros((40, 120), np.uint8)
    pixels[:, 40:80] = 200  # exactly the centred square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (load_image(tmp_path / "wide.png", size=16) == 200).all()
    Image.fromarray(pixels.T).save(tmp_path / "tall.png")
    assert (load_image(tmp_path / "tall.png", size=16) == 200).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_every_common_pixel_mode_becomes_gray(tmp_path: Path, mode: str) -> None:
    Image.new("L", (20, 20), 255).convert(mode).save(tmp_path / "x.png")
    assert (load_image(tmp_path / "x.png", size=8) == 255).all()


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 0x8040, np.uint16)).save(tmp_path / "x.png")
    assert (load_image(tmp_path / "x.png", size=8) == 0x80).all()


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    Image.new("L", (20, 20), 90).save(tmp_path / "x.jpg", format="PNG")
    assert load_image(tmp_path / "x.jpg", size=8).shape == (8, 8)
    Image.new("L", (20, 20), 90).save(tmp_path / "y.png", format="TIFF")
    with pytest.raises(InvalidInput, match="neither JPEG nor PNG"):
        load_image(tmp_path / "y.png", size=8)


def test_an_image_of_the_wanted_size_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert (load_image(tmp_path / "x.png", size=28) == pixels).all()
    assert (square_from_array(pixels, size=28) == pixels).all()


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    monkeypatch.setattr(images, "_to_gray", lambda _: pytest.fail("it was decoded"))
    (tmp_path / "bomb.png").write_bytes(_png_that_claims(side, side))
    with pytest.raises(TooLarge, match="million pixels"):
        load_image(tmp_path / "bomb.png", size=28)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_damage_anywhere_in_a_file_is_an_input_error_or_harmless(tmp_path: Path, form: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)).save(stream, format=form)
    whole, path, rng = stream.getvalue(), tmp_path / "x", random.Random(0)
    for trial in range(300):
        broken = bytearray(whole)
        if trial % 3 == 0:
            del broken[rng.randrange(len(broken)) :]
        for _ in range(rng.randrange(1, 4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(bytes(broken))
        with contextlib.suppress(InvalidInput, TooLarge):
            assert load_image(path, size=28).shape == (28, 28)


@pytest.mark.parametrize("size", [0, 7, 1025])
def test_a_size_out_of_range_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidInput, match="8 to 1024"):
        load_image(tmp_path / "x.png", size=size)
