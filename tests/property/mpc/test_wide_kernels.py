"""The one-round comparison: its kernels equal their plain reference, and the algebra compares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.mpc.kernels import reference, scaling, wide
from libs.mpc.kernels import wide_reference as plain
from libs.mpc.kernels.wide_reference import WideWindow

CASES = {
    "seed": st.integers(0, 2**32),
    "n": st.sampled_from([1, 7, 8, 9, 70, 1023, 1024, 1025]),
    "dtype": st.sampled_from([np.uint32, np.uint64]),
    "window": st.builds(WideWindow, low=st.integers(0, 12), bits=st.sampled_from([8, 12, 16, 20])),
    "lead": st.booleans(),
    "multiplier": st.integers(1, 2**32 - 1),
    "shift": st.integers(0, 32),
}


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@settings(max_examples=60, deadline=None)
@given(**CASES)
def test_wide_kernels_equal_the_reference(
    seed: int, n: int, dtype: type, window: WideWindow, lead: bool, multiplier: int, shift: int
) -> None:
    rng = np.random.default_rng(seed)
    m, r, mask = (draw(rng, (n,), dtype) for _ in range(3))
    masks = draw(rng, (n,), np.uint8)
    ratio = {"multiplier": multiplier, "shift": shift}
    blocks = plain.one_hot_blocks(r, window=window)
    hot = [draw(rng, block.shape, block.dtype) for block in blocks]
    into = [share.copy() for share in hot]
    wide.add_dealt_blocks(r, *into, window=window)
    assert all((i == h ^ b).all() for i, h, b in zip(into, hot, blocks, strict=True))
    opened = plain.compare(m, *hot, masks, window=window, lead=lead)
    assert (wide.compare(m, *hot, masks, window=window, lead=lead) == opened).all()
    for rows in (8, 14):
        dealt = draw(rng, (rows, n), dtype)
        into = dealt.copy()
        wide.subtract_from_dealt(r, masks, into, window=window, plain=rows == 8, **ratio)
        assert (into == plain.dealt_values(r, masks, window=window, plain=rows == 8, **ratio) - dealt).all()
    assert (
        wide.select(m, opened, dealt, lead=lead, **ratio)
        == plain.select(m, opened, dealt, lead=lead, **ratio)
    ).all()
    assert (
        wide.select_plain(m, opened, mask, dealt[:8], lead=lead)
        == plain.select_plain(m, opened, mask, dealt[:8], lead=lead)
    ).all()


@settings(max_examples=60, deadline=None)
@given(**CASES)
def test_scaling_kernels_equal_the_reference(
    seed: int, n: int, dtype: type, window: WideWindow, lead: bool, multiplier: int, shift: int
) -> None:
    rng = np.random.default_rng(seed)
    m, dealt = draw(rng, (n,), dtype), draw(rng, (2, n), dtype)
    public, wraps = reference.rescale_public(m, multiplier=multiplier, shift=shift)
    assert (scaling.rescale_public(m, multiplier=multiplier, shift=shift) == public).all()
    secret = reference.rescale_secret(m, multiplier=multiplier, shift=shift)
    got = scaling.rescale_secret(m, multiplier=multiplier, shift=shift)
    assert all((g == w).all() for g, w in zip(got, secret, strict=True))
    share = wraps * dealt[1] - dealt[0] + (public if lead else 0)
    assert (scaling.rescale(m, dealt, multiplier=multiplier, shift=shift, lead=lead) == share).all()


@pytest.mark.parametrize("bits", [8, 12])
def test_every_pair_of_windows_compares(bits: int) -> None:
    """All M and R (every R for a sample of M at 12 bits), under every pattern of the three masks."""
    rng, window, size = np.random.default_rng(bits), WideWindow(low=0, bits=bits), 1 << bits
    rows = np.arange(size) if bits == 8 else rng.choice(size, 40, replace=False)
    m, r = (grid.reshape(-1).astype(np.uint32) for grid in np.meshgrid(rows, np.arange(size)))
    for pattern in range(8):
        shares = [rng.integers(0, 8, m.size, dtype=np.uint8)]
        shares.append(shares[0] ^ np.uint8(pattern))
        blocks = plain.one_hot_blocks(r, window=window)
        hot = [[draw(rng, block.shape, block.dtype) for block in blocks]]
        hot.append([block ^ share for block, share in zip(blocks, hot[0], strict=True)])
        opened = np.zeros((3, -(-m.size // 8)), np.uint8)
        for j in range(2):
            opened ^= plain.compare(m, *hot[j], shares[j], window=window, lead=j == 0)
        basis = plain.mask_basis(r, shares[0] ^ shares[1], window=window)
        c0, c = plain.coefficients(opened, m.size, m.dtype)
        positive = c0 + (c * basis).sum(axis=0, dtype=m.dtype)
        difference = (m.astype(np.int64) - r.astype(np.int64)) % size
        assert (positive == (difference < size // 2)).all()


def test_one_hot_blocks_of_known_values() -> None:
    """Written out by hand: 0xA5C3 is sign 1, upper 0x25, lower 0xC3."""
    upper, lower = plain.one_hot_blocks(np.array([0xA5C3], np.uint32), window=WideWindow(low=0, bits=16))
    assert upper[:, 0].tolist() == [1 << 0x25, 0]
    assert lower[:, 0].tolist() == [0, 0, 0, 1 << 3]
    basis = plain.mask_basis(
        np.array([0xA5C3], np.uint32), np.array([0b110], np.uint8), window=WideWindow(low=0, bits=16)
    )
    minus_one = 2**32 - 1
    assert basis[:, 0].tolist() == [1, minus_one, minus_one, minus_one]
