"""Every transfer syntax gives the stored values that went in, whoever compressed them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from libs.data.dicom_file import read_elements
from libs.data.dicom_image import _TAGS, load_dicom, show_dicom
from libs.data.dicom_pixels import SYNTAXES, decode

from .dicom_files import chest, gradient, write

needs_dcmtk = pytest.mark.skipif(
    not shutil.which("dcmcjpeg"), reason="dcmtk is not installed; see tools/system_packages.sh"
)


def _stored(path: Path) -> npt.NDArray[np.generic]:
    return decode(read_elements(path, _TAGS, syntaxes=SYNTAXES))


def _image(*, bits: int, signed: bool = False) -> tuple[Dataset, npt.NDArray[np.int64]]:
    """A radiograph of values over the whole range of `bits`, odd in rows and columns."""
    low = -(2 ** (bits - 1)) if signed else 0
    values = gradient(height=41, width=31, high=2**bits - 1).astype(np.int64) + low
    data = chest(values & (2**bits - 1), bits=bits, PixelRepresentation=int(signed))
    if bits <= 8 and len(data.PixelData) % 2:
        data.PixelData += b"\0"
    return data, values


CODECS = {
    JPEGLossless: lambda pixels, bits: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits),
    JPEGLosslessSV1: lambda pixels, bits: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits),
    JPEGLSLossless: lambda pixels, bits: imagecodecs.jpegls_encode(pixels),
    JPEG2000Lossless: lambda pixels, bits: imagecodecs.jpeg2k_encode(
        pixels, reversible=True, bitspersample=bits, codecformat="j2k"
    ),
    JPEG2000: lambda pixels, bits: imagecodecs.jpeg2k_encode(pixels, reversible=True, bitspersample=bits),
    HTJ2KLossless: lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=True),
    HTJ2KLosslessRPCL: lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=True),
    HTJ2K: lambda pixels, bits: imagecodecs.htj2k_encode(pixels, reversible=True),
}


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", sorted(CODECS))
def test_a_lossless_stream_gives_the_values_that_went_in(tmp_path: Path, syntax: str, bits: int) -> None:
    data, values = _image(bits=bits)
    pixels = values.astype(np.uint8 if bits == 8 else np.uint16)
    data.PixelData = encapsulate([CODECS[syntax](pixels, bits)])
    assert np.array_equal(_stored(write(data, tmp_path / "a.dcm", syntax=syntax)), values)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(
    "syntax",
    [
        *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian),
        *(ExplicitVRBigEndian, RLELossless),
    ],
)
def test_plain_deflated_and_run_lengths_give_the_values_that_went_in(
    tmp_path: Path, syntax: str, bits: int, signed: bool
) -> None:
    data, values = _image(bits=bits, signed=signed)
    if syntax == RLELossless:
        options = {
            name: getattr(data, keyword)
            for name, keyword in (
                *(("rows", "Rows"), ("columns", "Columns"), ("bits_allocated", "BitsAllocated")),
                *(("bits_stored", "BitsStored"), ("samples_per_pixel", "SamplesPerPixel")),
                *(("pixel_representation", "PixelRepresentation"),),
                ("photometric_interpretation", "PhotometricInterpretation"),
            )
        }
        kind = f"{'i' if signed else 'u'}{data.BitsAllocated // 8}"
        data.PixelData = encapsulate(
            [
                RLELosslessEncoder.encode(
                    values.astype(kind), encoding_plugin="pydicom", number_of_frames=1, **options
                )
            ]
        )
    if syntax == ExplicitVRBigEndian and bits > 8:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    assert np.array_equal(_stored(write(data, tmp_path / "a.dcm", syntax=syntax)), values)


def test_jpeg_of_twelve_bits_gives_nearly_the_values_that_went_in(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(100, 4000, 30), (40, 30)).astype(np.uint16, order="C")
    stream = imagecodecs.jpeg8_encode(smooth, level=98, bitspersample=12)
    data = chest(smooth, bits=12, PixelData=encapsulate([stream]))
    found = _stored(write(data, tmp_path / "a.dcm", syntax=JPEGExtended12Bit)).astype(int)
    assert np.abs(found - smooth).max() <= 16


def test_near_lossless_gives_nearly_the_values_that_went_in(tmp_path: Path) -> None:
    data, values = _image(bits=12)
    data.PixelData = encapsulate([imagecodecs.jpegls_encode(values.astype(np.uint16), level=3)])
    found = _stored(write(data, tmp_path / "a.dcm", syntax=JPEGLSNearLossless)).astype(int)
    assert 0 < np.abs(found - values).max() <= 3


@needs_dcmtk
@pytest.mark.parametrize(
    ("command", "bits", "signed"),
    [
        (["dcmcjpeg", "+e1"], 12, False),
        (["dcmcjpeg", "+e1"], 16, False),
        (["dcmcjpeg", "+e1"], 12, True),
        (["dcmcjpeg", "+el", "+sv", "4"], 12, False),
        (["dcmcjpls", "+el"], 12, True),
        (["dcmcjpls", "+el"], 8, False),
        (["dcmcrle"], 12, True),
        (["dcmconv", "+td"], 12, False),
        (["dcmconv", "+tb"], 12, True),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else str(value),
)
def test_files_that_dcmtk_converted_give_the_values_that_went_in(
    tmp_path: Path, command: list[str], bits: int, signed: bool
) -> None:
    data, values = _image(bits=bits, signed=signed)
    plain, other = write(data, tmp_path / "a.dcm"), tmp_path / "b.dcm"
    subprocess.run([*command, str(plain), str(other)], check=True, capture_output=True)
    assert dcmread(other).file_meta.TransferSyntaxUID != ExplicitVRLittleEndian
    assert np.array_equal(_stored(other), values)


def test_overlays_in_the_upper_bits_are_no_part_of_the_image(tmp_path: Path) -> None:
    values = gradient(high=4095)
    data = chest(values, bits=12)
    data.PixelData = (values | 0xF000).astype("<u2").tobytes()
    assert np.array_equal(_stored(write(data, tmp_path / "a.dcm")), values)


# ---------------------------------------------------------------- as a viewer shows them


def _shown(tmp_path: Path, data: Dataset) -> npt.NDArray[np.int64]:
    return show_dicom(write(data, tmp_path / "a.dcm")).astype(np.int64)


def _table(entries: npt.NDArray[np.integer], *, first: int, bits: int, words: bool = True) -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(entries) % 2**16, first % 2**16, bits])
    if words:
        table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    else:
        table.add_new("LUTData", "US", entries.tolist())
    return table


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", lambda x: (x - 1999.5) / 999 + 0.5),
        ("LINEAR_EXACT", lambda x: (x - 2000) / 1000 + 0.5),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 2000) / 1000))),
    ],
    ids=["linear", "exact", "sigmoid"],
)
def test_windows_are_the_functions_of_the_standard(tmp_path: Path, function: str, expected: object) -> None:
    values = gradient(high=4095)
    data = chest(values, bits=12, WindowCenter="2000", WindowWidth="1000", VOILUTFunction=function)
    wanted = np.rint(np.clip(expected(values.astype(float)), 0, 1) * 255)  # type: ignore[operator]
    assert np.array_equal(_shown(tmp_path, data), wanted)


def test_a_window_of_one_value_is_a_threshold(tmp_path: Path) -> None:
    values = gradient(high=4095)
    shown = _shown(tmp_path, chest(values, bits=12, WindowCenter="100.5", WindowWidth="1"))
    assert np.array_equal(shown, np.where(values > 100, 255, 0))


@pytest.mark.parametrize("words", [True, False], ids=["OW", "US"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_voi_table_of_any_depth_reaches_from_black_to_white(tmp_path: Path, bits: int, words: bool) -> None:
    values = gradient(high=1023)
    entries = np.arange(1024)[::-1] * (2**bits - 1) // 1023
    data = chest(values, bits=10, VOILUTSequence=[_table(entries, first=0, bits=bits, words=words)])
    wanted = np.rint(entries[values] / (2**bits - 1) * 255)
    assert np.array_equal(_shown(tmp_path, data), wanted)


def test_values_outside_of_a_table_take_its_ends(tmp_path: Path) -> None:
    table = _table(np.array([10, 250]), first=100, bits=8)
    shown = _shown(tmp_path, chest(gradient(high=4095), bits=12, VOILUTSequence=[table]))
    assert set(np.unique(shown)) == {10, 250}


def test_a_table_for_values_with_a_sign_begins_below_zero(tmp_path: Path) -> None:
    values = gradient(high=4095)
    table = _table(np.arange(4096) // 16, first=-1024, bits=8)
    data = chest(values, bits=12, RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=[table])
    assert np.array_equal(_shown(tmp_path, data), values // 16)


def test_a_modality_table_comes_before_the_window(tmp_path: Path) -> None:
    values = gradient(high=255)
    table = _table(np.arange(256)[::-1] * 4, first=0, bits=10)
    data = chest(values, ModalityLUTSequence=[table], WindowCenter="512", WindowWidth="1024")
    wanted = np.rint(np.clip(((255 - values.astype(float)) * 4 - 511.5) / 1023 + 0.5, 0, 1) * 255)
    assert np.array_equal(_shown(tmp_path, data), wanted)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_stretch_the_image(tmp_path: Path, photometric: str) -> None:
    values = gradient(high=900).astype(np.int64) + 100
    values[:, :5] = 4095
    values[:5] = 4000
    data = chest(
        values,
        bits=12,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=4000,
        PixelPaddingRangeLimit=4095,
    )
    shown = _shown(tmp_path, data)
    assert not shown[:5].any()
    assert not shown[:, :5].any()
    assert {shown[5:, 5:].min(), shown[5:, 5:].max()} == {0, 255}


def test_a_square_is_cut_from_what_is_shown(tmp_path: Path) -> None:
    path = write(chest(gradient(height=30)), tmp_path / "a.dcm")
    assert np.array_equal(load_dicom(path, size=30).pixels, show_dicom(path))
