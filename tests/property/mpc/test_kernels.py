"""The fused kernels equal their plain reference, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.mpc.kernels import fused, reference
from libs.mpc.kernels.tables import join_tables

CASES = {
    "seed": st.integers(0, 2**32),
    "n": st.integers(1, 70),
    "blocks": st.sampled_from([2, 3, 4, 5]),
    "dtype": st.sampled_from([np.uint32, np.uint64]),
    "low": st.integers(0, 12),
    "lead": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(**CASES)
def test_fused_bit_kernels_equal_the_reference(
    seed: int, n: int, blocks: int, dtype: type, low: int, lead: bool
) -> None:
    rng, tables = np.random.default_rng(seed), join_tables(blocks)
    m = rng.integers(0, np.iinfo(dtype).max, n, dtype=dtype, endpoint=True)
    onehot = rng.integers(0, 1 << 16, (blocks, n), dtype=np.uint16)
    masks = rng.integers(0, 1 << 16, n, dtype=np.uint16)
    products = rng.integers(0, 1 << tables.products, n, dtype=tables.product_dtype)
    got = fused.compare_blocks(m, onehot, masks, low=low, blocks=blocks)
    want = reference.compare_blocks(m, onehot, masks, low=low, blocks=blocks)
    assert all((g == w).all() for g, w in zip(got, want, strict=True))
    join = [k.join_blocks(*want, masks, products, tables=tables, lead=lead) for k in (fused, reference)]
    assert (join[0] == join[1]).all()
    dealt = reference.deal_blocks(m, masks, low=low, tables=tables)
    into = (onehot.copy(), products.copy())
    fused.add_dealt_blocks(m, masks, low=low, tables=tables, onehot=into[0], products=into[1])
    assert (into[0] == onehot ^ dealt[0]).all()
    assert (into[1] == products ^ dealt[1]).all()


@settings(max_examples=60, deadline=None)
@given(**CASES, multiplier=st.integers(1, 2**32 - 1), shift=st.integers(0, 32))
def test_fused_selection_equals_the_reference(
    seed: int, n: int, blocks: int, dtype: type, low: int, lead: bool, multiplier: int, shift: int
) -> None:
    rng = np.random.default_rng(seed)
    m = rng.integers(0, np.iinfo(dtype).max, n, dtype=dtype, endpoint=True)
    dealt = rng.integers(0, np.iinfo(dtype).max, (5, n), dtype=dtype, endpoint=True)
    positive = rng.integers(0, 256, (n + 7) // 8, dtype=np.uint8)
    got, want = (
        k.select(m, positive, dealt, multiplier=multiplier, shift=shift, lead=lead)
        for k in (fused, reference)
    )
    assert (got == want).all()


@given(value=st.integers(0, 2**64 - 1), multiplier=st.integers(1, 2**32 - 1), shift=st.integers(0, 32))
def test_scaling_down_is_exact_in_both_rings(value: int, multiplier: int, shift: int) -> None:
    for dtype in (np.uint32, np.uint64):
        bits = np.dtype(dtype).itemsize * 8
        element = value % (1 << bits)
        got = int(reference.scale_down(np.array([element], dtype), multiplier=multiplier, shift=shift)[0])
        assert got == ((element * multiplier) >> shift) % (1 << bits)


@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_the_join_polynomial_compares(blocks: int) -> None:
    """Every pair of windows: shares of the polynomial add up to the sign of M - R."""
    tables, bits = join_tables(blocks), 4 * blocks
    rng = np.random.default_rng(blocks)
    size = 1 << bits
    m = rng.integers(0, size, 4000).astype(np.uint32)
    r = rng.integers(0, size, 4000).astype(np.uint32)
    masks = [rng.integers(0, 1 << 16, 4000, dtype=np.uint16) for _ in range(2)]
    onehot, products = reference.deal_blocks(r, masks[0] ^ masks[1], low=0, tables=tables)
    hot = [rng.integers(0, 1 << 16, onehot.shape, dtype=np.uint16)]
    hot.append(onehot ^ hot[0])
    product = [rng.integers(0, 1 << tables.products, 4000, dtype=tables.product_dtype)]
    product.append(products ^ product[0])
    sides = [reference.compare_blocks(m, hot[j], masks[j], low=0, blocks=blocks) for j in range(2)]
    opened = sides[0][0] ^ sides[1][0]
    shares = [
        reference.join_blocks(opened, sides[j][1], masks[j], product[j], tables=tables, lead=j == 0)
        for j in range(2)
    ]
    sign_mask = (masks[0] ^ masks[1]) >> np.uint16(15)
    positive = np.unpackbits(shares[0] ^ shares[1], count=4000, bitorder="little") ^ sign_mask
    difference = (m.astype(np.int64) - r.astype(np.int64)) % size
    assert (positive == (difference < size // 2)).all()


@settings(max_examples=60, deadline=None)
@given(**CASES, multiplier=st.integers(1, 2**32 - 1), shift=st.integers(0, 32))
def test_fused_dealing_and_plain_selection_equal_the_reference(
    seed: int, n: int, blocks: int, dtype: type, low: int, lead: bool, multiplier: int, shift: int
) -> None:
    rng, top = np.random.default_rng(seed), np.iinfo(dtype).max
    m, r = (rng.integers(0, top, n, dtype=dtype, endpoint=True) for _ in range(2))
    masks = rng.integers(0, 1 << 16, n, dtype=np.uint16)
    for rows in (2, 5):
        options = {"multiplier": multiplier, "shift": shift, "plain": rows == 2}
        draws = rng.integers(0, top, (rows, n), dtype=dtype, endpoint=True)
        into = draws.copy()
        fused.subtract_from_dealt(r, masks, into, **options)
        assert (into == reference.dealt_values(r, masks, **options) - draws).all()
    positive = rng.integers(0, 256, (n + 7) // 8, dtype=np.uint8)
    got, want = (k.select_plain(m, positive, r, draws[:2], lead=lead) for k in (fused, reference))
    assert (got == want).all()
