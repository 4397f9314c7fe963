"""The sign protocol's kernels as fused loops: one pass over the values, no temporary arrays.

Compiled by numba on first use and cached on disk; `warm_up` compiles them when a service starts, so
that no request waits for a compiler. They release the GIL. `reference.py` says what each computes
and is what the tests compare with; nothing here branches on a secret.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from libs.mpc.kernels import reference
from libs.mpc.kernels.tables import LESS, TOP_EQUAL, TOP_NEGATIVE, JoinTables, join_tables
from libs.mpc.ring import Ring, RingArray

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
_compiled = njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")


@_compiled
def _parity(value: Any) -> Any:
    value ^= value >> np.uint32(8)
    value ^= value >> np.uint32(4)
    return (np.uint32(0x6996) >> (value & np.uint32(15))) & np.uint32(1)


@_compiled
def _compare(m, onehot, masks, low, less, top_negative, top_equal, planes, negative):  # type: ignore[no-untyped-def]
    n, blocks = onehot.shape
    top = blocks - 1
    for start in range(0, n, 8):
        column = start >> 3
        stop = min(start + 8, n)
        for v in range(start, stop):
            place = np.uint32(v - start)
            window = np.uint32(m[v] >> low)
            mask = np.uint32(masks[v])
            block = (window >> np.uint32(4 * top)) & np.uint32(15)
            hot = np.uint32(onehot[v, top])
            negative[v] = _parity(hot & np.uint32(top_negative[block]))
            bit = _parity(hot & np.uint32(top_equal[block])) ^ (mask & np.uint32(1))
            planes[0, column] |= np.uint8(bit << place)
            plane = np.uint32(1)
            for i in range(top - 1, -1, -1):
                block = (window >> np.uint32(4 * i)) & np.uint32(15)
                hot = np.uint32(onehot[v, i])
                bit = _parity(hot & np.uint32(less[block])) ^ ((mask >> plane) & np.uint32(1))
                planes[plane, column] |= np.uint8(bit << place)
                plane += np.uint32(1)
                if i > 0:
                    bit = ((hot >> block) & np.uint32(1)) ^ ((mask >> plane) & np.uint32(1))
                    planes[plane, column] |= np.uint8(bit << place)
                    plane += np.uint32(1)


@_compiled
def _join(opened, top, masks, products, coefficients, constant, lead, packed):  # type: ignore[no-untyped-def]
    n = top.size
    width = opened.shape[0]
    low_bits = np.uint64((1 << width) - 1)
    for v in range(n):
        column, place = v >> 3, np.uint32(v & 7)
        pattern = np.uint32(0)
        for i in range(width):
            pattern |= ((np.uint32(opened[i, column]) >> place) & np.uint32(1)) << np.uint32(i)
        word = (np.uint64(masks[v]) & low_bits) | (np.uint64(products[v]) << np.uint64(width))
        chosen = word & coefficients[pattern]
        chosen ^= chosen >> np.uint64(32)
        folded = np.uint32(chosen & np.uint64(0xFFFFFFFF))
        folded ^= folded >> np.uint32(16)
        share = (
            _parity(folded & np.uint32(0xFFFF)) ^ np.uint32(top[v]) ^ (np.uint32(masks[v]) >> np.uint32(15))
        )
        share ^= lead & (np.uint32(constant[pattern]) ^ np.uint32(1))
        packed[column] |= np.uint8((share & np.uint32(1)) << place)


@_compiled
def _select32(m, positive, dealt, multiplier, shift, offset, lead, out):  # type: ignore[no-untyped-def]
    for v in range(m.size):
        shifted = np.uint32(m[v] + np.uint32(1 << 30))
        public = np.uint32((np.uint64(shifted) * multiplier) >> shift) - offset
        wraps = np.uint32(1) - (shifted >> np.uint32(31))
        kept = np.uint32(dealt[0, v] * public - dealt[3, v] + wraps * dealt[4, v])
        full = np.uint32(lead * public - dealt[1, v] + wraps * dealt[2, v])
        s = np.uint32((positive[v >> 3] >> np.uint8(v & 7)) & np.uint8(1))
        # s is public: it is the sign under the dealer's mask bit
        out[v] = kept + s * (full - np.uint32(2) * kept)


@_compiled
def _deal_blocks(r, masks, low, monomials, width, onehot, products):  # type: ignore[no-untyped-def]
    n, blocks = onehot.shape
    low_bits = np.uint32((1 << width) - 1)
    for v in range(n):
        window = np.uint32(r[v] >> low)
        for i in range(blocks):
            onehot[v, i] ^= np.uint16(np.uint32(1) << ((window >> np.uint32(4 * i)) & np.uint32(15)))
        products[v] ^= monomials[np.uint32(masks[v]) & low_bits]


def compare_blocks(m: RingArray, onehot: U16, masks: U16, *, low: int, blocks: int) -> tuple[U8, U8]:
    """See `reference.compare_blocks`."""
    n = len(m)
    planes = np.zeros((2 * blocks - 2, (n + 7) // 8), dtype=np.uint8)
    negative = np.empty(n, dtype=np.uint8)
    _compare(m, onehot, masks, m.dtype.type(low), LESS, TOP_NEGATIVE, TOP_EQUAL, planes, negative)
    return planes, negative


def join_blocks(
    opened: U8, top: U8, masks: U16, products: npt.NDArray[Any], *, tables: JoinTables, lead: bool
) -> U8:
    """See `reference.join_blocks`."""
    packed = np.zeros((len(top) + 7) // 8, dtype=np.uint8)
    _join(opened, top, masks, products, tables.coefficients, tables.constant, np.uint32(lead), packed)
    return packed


def add_dealt_blocks(
    r: RingArray, masks: U16, *, low: int, tables: JoinTables, onehot: U16, products: npt.NDArray[Any]
) -> None:
    """XOR `reference.deal_blocks` into `onehot` and `products`, which hold the first evaluator's shares."""
    monomials = tables.monomials.astype(tables.product_dtype)
    _deal_blocks(r, masks, r.dtype.type(low), monomials, tables.opened, onehot, products)


def select(
    m: RingArray, positive: U8, dealt: RingArray, *, multiplier: int, shift: int, lead: bool
) -> RingArray:
    """See `reference.select`. The 64-bit ring takes the plain path: it is the exception, not the rule."""
    if m.dtype.itemsize != 4:
        return reference.select(m, positive, dealt, multiplier=multiplier, shift=shift, lead=lead)
    out = np.empty_like(m)
    offset = np.uint32((((1 << 30) * multiplier) >> shift) % (1 << 32))
    _select32(m, positive, dealt, np.uint64(multiplier), np.uint64(shift), offset, np.uint32(lead), out)
    return out


def warm_up() -> None:
    """Compile every kernel for every type it meets. Seconds the first time, milliseconds after."""
    for ring in Ring:
        values = ring.zeros((9,))
        masks = np.zeros(9, dtype=np.uint16)
        for blocks in (4, 5):
            tables = join_tables(blocks)
            onehot = np.zeros((9, blocks), dtype=np.uint16)
            products = np.zeros(9, dtype=tables.product_dtype)
            add_dealt_blocks(values, masks, low=1, tables=tables, onehot=onehot, products=products)
            planes, top = compare_blocks(values, onehot, masks, low=1, blocks=blocks)
            packed = join_blocks(planes, top, masks, products, tables=tables, lead=True)
        select(values, packed, np.zeros((5, 9), ring.dtype), multiplier=1, shift=1, lead=True)
