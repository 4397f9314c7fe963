"""Every way to multiply in the ring gives the bits of torch's wrapping integers, at every size and digit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.core.errors import InvalidInput
from libs.mpc.kernels import byte_product, columns, limbs, linear
from libs.mpc.kernels.device import Device
from libs.mpc.kernels.shapes import ConvolutionShape

DTYPES = [np.uint32, np.uint64]
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uniform elements, among them those whose digits are extreme."""
    bits = np.iinfo(dtype).bits
    patterns = [0, 1 << (bits - 1), (1 << bits) - 1, int("80" * (bits // 8), 16), int("7f" * (bits // 8), 16)]
    values = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    extreme = rng.choice(np.array(patterns, dtype=dtype), shape)
    return np.where(rng.random(shape) < 0.5, values, extreme)


@st.composite
def convolutions(draw_: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], ConvolutionShape]:
    groups = draw_(st.integers(1, 3))
    n, per_group, outputs = draw_(st.integers(1, 3)), draw_(st.integers(1, 4)), draw_(st.integers(1, 3))
    kernel, dilation = draw_(PAIR), draw_(PAIR)
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw_(st.integers(0, r)) for r in reach)
    image = tuple(draw_(st.integers(r + 1, r + 6)) for r in reach)
    shape = ConvolutionShape(draw_(PAIR), padding, dilation, groups)
    return (n, groups * per_group, *image), (groups * outputs, per_group, *kernel), shape


def every_convolution(x: np.ndarray, w: np.ndarray, shape: ConvolutionShape) -> dict[str, np.ndarray]:
    size = shape.output(w.shape[2:], x.shape[2:])
    options = {"stride": shape.stride, "padding": shape.padding, "dilation": shape.dilation}
    # Where bytes are not exact the product is never chosen, and has nothing to show.
    by_bytes = byte_product.conv2d if byte_product.is_exact() else linear.conv2d
    by_rows = columns.convolve_by_rows if shape.groups == 1 else columns.convolve_directly
    if shape.groups > 1:
        options["groups"] = shape.groups
    return {
        "rows": by_rows(x, w, size=size, **options),
        "bytes": by_bytes(x, w, shape),
        "limbs": limbs.conv2d(x, w, shape, device="cpu"),
        "direct": columns.convolve_directly(x, w, size=size, **{"groups": 1, **options}),
        "chosen": linear.conv2d(x, w, shape),
    }


@pytest.mark.filterwarnings("error:int_mm")  # torch's slow way round a layout that oneDNN refuses
@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), dtype=st.sampled_from(DTYPES), case=convolutions())
def test_convolutions_agree(seed: int, dtype: Any, case: Any) -> None:
    rng, (x_shape, w_shape, shape) = np.random.default_rng(seed), case
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    want = linear.conv2d_plain(x, w, shape)
    for name, got in every_convolution(x, w, shape).items():
        assert (got == want).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride"),
    [
        ((2, 70, 17, 15), (9, 70, 3, 3), 1),
        ((1, 300, 9, 9), (5, 300, 1, 1), 1),
        ((3, 8, 33, 30), (4, 8, 7, 7), 2),
    ],
)
def test_convolutions_agree_when_they_are_tiled(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, x_shape: Any, w_shape: Any, stride: int
) -> None:
    monkeypatch.setattr(byte_product, "_TILE_BYTES", 4096)
    monkeypatch.setitem(limbs._TILE_BYTES, "cpu", 4096)
    monkeypatch.setattr(byte_product, "_largest_inner", lambda ring: 130)  # channels are cut, too
    rng, shape = np.random.default_rng(1), ConvolutionShape((stride, stride), (0, 0))
    x, w = draw(rng, x_shape, dtype), draw(rng, w_shape, dtype)
    want = linear.conv2d_plain(x, w, shape)
    for name, got in every_convolution(x, w, shape).items():
        assert (got == want).all(), name


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(DTYPES),
    n=st.integers(1, 20),
    inner=st.sampled_from([1, 2, 63, 64, 65, 1000, 33_000, 70_000]),
    outputs=st.integers(1, 4),
)
def test_matrix_products_agree(seed: int, dtype: Any, n: int, inner: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = draw(rng, (n, inner), dtype), draw(rng, (outputs, inner), dtype)
    want = x @ w.T
    for name, got in {
        "plain": linear.linear_plain(x, w),
        "bytes": (byte_product.matmul if byte_product.is_exact() else linear.linear)(x, w),
        "limbs": limbs.matmul(x, w, device="cpu"),
        "rows": columns.multiply_rows(w, x).T,
        "chosen": linear.linear(x, w),
    }.items():
        assert (got == want).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_prepared_weights_are_told_apart_and_used_again(dtype: Any) -> None:
    rng, prepared = np.random.default_rng(3), byte_product.PreparedWeights()
    weights = draw(rng, (4, 6, 6, 3, 3), dtype)
    x, shape = draw(rng, (1, 12, 9, 9), dtype), ConvolutionShape(groups=2)
    for weight in (weights[0], weights[1], weights[0], weights[1, :4]):
        want = linear.conv2d_plain(x, weight, shape)
        if byte_product.is_exact():
            assert (byte_product.conv2d(x, weight, shape, prepared) == want).all()
    assert str(int(weights[0, 0, 0, 0, 0])) not in repr(prepared)


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("inner", [1, 9, 576, 4608, 25_088, 1 << 20, 1 << 30])
def test_no_sum_of_digits_can_be_rounded(ring_bits: int, inner: int) -> None:
    digits = limbs.digits_for(inner, ring_bits)
    terms = min(inner, digits.chunk) * digits.count
    assert terms * (2 ** (digits.bits - 1)) ** 2 < 2**53
    assert digits.bits * digits.count >= ring_bits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pattern", ["80", "7f", "ff", "00", "81"])
def test_extreme_digits_fill_no_accumulator(dtype: Any, pattern: str) -> None:
    """All digits alike and extreme, at inner dimensions where one more digit would overflow."""
    value = int(pattern * np.dtype(dtype).itemsize, 16)
    x = np.full((3, 40_000), value, dtype=dtype)
    by_bytes = byte_product.matmul if byte_product.is_exact() else linear.linear
    for product in (by_bytes, lambda a, b: limbs.matmul(a, b, device="cpu")):
        assert (product(x, x) == (value * value * 40_000) % (1 << np.iinfo(dtype).bits)).all()


def test_a_missing_gpu_is_named_when_a_service_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="set device to cpu"):
        Device.CUDA.check()
    Device.CPU.check()


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_gives_the_same_bits(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    shape = ConvolutionShape((2, 2), (1, 1), (1, 1), 2)
    x, w = draw(rng, (2, 64, 28, 28), dtype), draw(rng, (32, 32, 3, 3), dtype)
    assert (linear.conv2d(x, w, shape, device=Device.CUDA) == linear.conv2d_plain(x, w, shape)).all()
    x, w = draw(rng, (5, 25_088), dtype), draw(rng, (40, 25_088), dtype)
    assert (linear.linear(x, w, device=Device.CUDA) == x @ w.T).all()
