"""The sign protocol's kernels as loops that the compiler turns into vector instructions.

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
from libs.mpc.kernels.scaling import offsets, rescale_secret
from libs.mpc.kernels.tables import JoinTables, join_tables
from libs.mpc.ring import Ring, RingArray

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
_compiled = njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")


_CONSTANT_BIT = 31
"""Of a coefficient: the part without any mask, which the lead adds."""


@_compiled
def _parity16(value: Any) -> Any:
    value ^= value >> np.uint32(8)
    value ^= value >> np.uint32(4)
    value ^= value >> np.uint32(2)
    value ^= value >> np.uint32(1)
    return value & np.uint32(1)


@_compiled
def _top_block(m, low, hot, masks, negative, bits):  # type: ignore[no-untyped-def]
    """Bit 0 of `bits`, which begin as masks: equal; `negative`: the sign. Sets as in `tables`."""
    for v in range(m.size):
        block = np.uint32(m[v] >> low) & np.uint32(15)
        rest, mine = block & np.uint32(7), np.uint32(hot[v])
        less = (np.uint32(0xFE) << rest) & np.uint32(0xFF)
        chosen = less | ((less ^ np.uint32(0xFF)) << np.uint32(8))
        chosen ^= (np.uint32(0) - (block >> np.uint32(3))) & np.uint32(0xFFFF)
        negative[v] = np.uint8(_parity16(mine & chosen))
        equal = ((mine >> rest) ^ (mine >> (rest + np.uint32(8)))) & np.uint32(1)
        bits[v] = np.uint8(equal ^ np.uint32(masks[v]))


@_compiled
def _lower_block(m, low, hot, plane, bits):  # type: ignore[no-untyped-def]
    """Bit `plane`: less; bit `plane + 1`: equal."""
    for v in range(m.size):
        block, mine = np.uint32(m[v] >> low) & np.uint32(15), np.uint32(hot[v])
        less = _parity16(mine & (np.uint32(0xFFFE) << block) & np.uint32(0xFFFF))
        equal = (mine >> block) & np.uint32(1)
        bits[v] ^= np.uint8((less | (equal << np.uint32(1))) << plane)


@_compiled
def transpose_bits(groups):  # type: ignore[no-untyped-def]
    """Each word as an 8 x 8 matrix of bits, transposed in place: 8 values' bytes <-> 8 bit planes' bytes."""
    for i in range(groups.size):
        x = groups[i]
        t = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
        x = x ^ t ^ (t << np.uint64(7))
        t = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
        x = x ^ t ^ (t << np.uint64(14))
        t = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
        groups[i] = x ^ t ^ (t << np.uint64(28))


@_compiled
def _join32(pattern, top, masks, products, coefficients, width, lead, out):  # type: ignore[no-untyped-def]
    own = (np.uint32(1) << width) - np.uint32(1)
    for v in range(top.size):
        word = (np.uint32(masks[v]) & own) | (np.uint32(products[v]) << width) | lead
        chosen = word & coefficients[pattern[v]]
        share = _parity16(chosen ^ (chosen >> np.uint32(16))) ^ np.uint32(top[v])
        share ^= np.uint32(masks[v]) >> np.uint32(15)
        out[v] = np.uint8(share & np.uint32(1))


@_compiled
def _deal_blocks(r, masks, low, monomials, own, onehot, products):  # type: ignore[no-untyped-def]
    for i in range(onehot.shape[0]):
        hot, shift = onehot[i], low + r.dtype.type(4 * i)
        for v in range(r.size):
            hot[v] ^= np.uint16(np.uint32(1) << (np.uint32(r[v] >> shift) & np.uint32(15)))
    for v in range(r.size):
        products[v] ^= monomials[masks[v] & own]


@_compiled
def _select(m, positive, dealt, offset, top, multiplier, shift, minus, lead, out):  # type: ignore[no-untyped-def]
    kind = m.dtype.type
    for v in range(m.size):
        shifted = kind(m[v] + offset)
        x = np.uint64(shifted)
        high = ((x >> np.uint64(32)) * multiplier) << (np.uint64(32) - shift)
        public = kind(high + (((x & np.uint64(0xFFFFFFFF)) * multiplier) >> shift)) - minus
        wraps = kind(1) - (shifted >> top)
        kept = kind(dealt[0, v] * public - dealt[3, v] + wraps * dealt[4, v])
        full = kind(lead * public - dealt[1, v] + wraps * dealt[2, v])
        s = kind((positive[v >> 3] >> np.uint8(v & 7)) & np.uint8(1))
        # s is public: it is the sign under the dealer's mask bit
        out[v] = kept + s * (full - kind(2) * kept)


@_compiled
def _select_plain(m, positive, mask, dealt, lead, out):  # type: ignore[no-untyped-def]
    kind = m.dtype.type
    for v in range(m.size):
        kept = kind(dealt[0, v] * m[v] - dealt[1, v])
        s = kind((positive[v >> 3] >> np.uint8(v & 7)) & np.uint8(1))
        out[v] = kept + s * (lead * m[v] - mask[v] - kind(2) * kept)


@_compiled
def _subtract_selection(masks, r, floor_r, wrap, out):  # type: ignore[no-untyped-def]
    kind = r.dtype.type
    for v in range(r.size):
        b = kind(masks[v] >> np.uint16(15))
        out[0, v] = b - out[0, v]
        out[1, v] = floor_r[v] - out[1, v]
        out[2, v] = wrap[v] - out[2, v]
        out[3, v] = b * floor_r[v] - out[3, v]
        out[4, v] = b * wrap[v] - out[4, v]


@_compiled
def _subtract_plain_selection(masks, r, out):  # type: ignore[no-untyped-def]
    kind = r.dtype.type
    for v in range(r.size):
        b = kind(masks[v] >> np.uint16(15))
        out[0, v] = b - out[0, v]
        out[1, v] = b * r[v] - out[1, v]


def compare_blocks(m: RingArray, onehot: U16, masks: U16, *, low: int, blocks: int) -> tuple[U8, U8]:
    """See `reference.compare_blocks`."""
    n, top = len(m), blocks - 1
    bits = np.zeros((n + 7) // 8 * 8, dtype=np.uint8)
    negative = np.empty(n, dtype=np.uint8)
    _top_block(m, m.dtype.type(low + 4 * top), onehot[top], masks, negative, bits)
    for i in range(top - 1, -1, -1):
        plane = np.uint32(2 * (top - i) - 1)
        _lower_block(m, m.dtype.type(low + 4 * i), onehot[i], plane, bits)
    # The bottom block's "equal" and the masks' other bits lie in planes that are not sent.
    groups = bits.view(np.uint64)
    transpose_bits(groups)
    return np.ascontiguousarray(bits.reshape(-1, 8).T[: 2 * top]), negative


def join_blocks(
    opened: U8, top: U8, masks: U16, products: npt.NDArray[Any], *, tables: JoinTables, lead: bool
) -> U8:
    """See `reference.join_blocks`. Five blocks take the plain path: they are the exception, not the rule."""
    if tables.opened + tables.products > _CONSTANT_BIT:
        return reference.join_blocks(opened, top, masks, products, tables=tables, lead=lead)
    groups = np.zeros((opened.shape[1], 8), dtype=np.uint8)
    groups[:, : tables.opened] = opened.T
    pattern = groups.reshape(-1)
    transpose_bits(pattern.view(np.uint64))
    out = np.empty(len(top), dtype=np.uint8)
    constant = (tables.constant.astype(np.uint32) ^ 1) << np.uint32(_CONSTANT_BIT)
    coefficients = tables.coefficients.astype(np.uint32) | constant
    width, mine = np.uint32(tables.opened), np.uint32(int(lead) << _CONSTANT_BIT)
    _join32(pattern, top, masks, products, coefficients, width, mine, out)
    return np.packbits(out, bitorder="little")


def add_dealt_blocks(
    r: RingArray, masks: U16, *, low: int, tables: JoinTables, onehot: U16, products: npt.NDArray[Any]
) -> None:
    """XOR `reference.deal_blocks` into `onehot` and `products`, which hold the first evaluator's shares."""
    monomials = tables.monomials.astype(tables.product_dtype)
    own = np.uint16((1 << tables.opened) - 1)
    _deal_blocks(r, masks, r.dtype.type(low), monomials, own, onehot, products)


def subtract_from_dealt(
    r: RingArray, masks: U16, draws: RingArray, *, multiplier: int, shift: int, plain: bool
) -> None:
    """Replace the first evaluator's shares by `reference.dealt_values` minus them."""
    if plain:
        _subtract_plain_selection(masks, r, draws)
        return
    _subtract_selection(masks, r, *rescale_secret(r, multiplier=multiplier, shift=shift), draws)


def select(
    m: RingArray, positive: U8, dealt: RingArray, *, multiplier: int, shift: int, lead: bool
) -> RingArray:
    """See `reference.select`."""
    ring, out = Ring.of(m), np.empty_like(m)
    offset, minus, top = offsets(ring, multiplier=multiplier, shift=shift)
    scale = (np.uint64(multiplier), np.uint64(shift))
    _select(m, positive, dealt, offset, top, *scale, minus, ring.constant(int(lead)), out)
    return out


def select_plain(m: RingArray, positive: U8, mask: RingArray, dealt: RingArray, *, lead: bool) -> RingArray:
    """See `reference.select_plain`."""
    out = np.empty_like(m)
    _select_plain(m, positive, mask, dealt, Ring.of(m).constant(int(lead)), out)
    return out


def warm_up() -> None:
    """Compile every kernel for every type it meets."""
    for ring in Ring:
        values = ring.zeros((9,))
        masks = np.zeros(9, dtype=np.uint16)
        for blocks in (4, 5):
            tables = join_tables(blocks)
            onehot = np.zeros((blocks, 9), dtype=np.uint16)
            products = np.zeros(9, dtype=tables.product_dtype)
            add_dealt_blocks(values, masks, low=1, tables=tables, onehot=onehot, products=products)
            planes, top = compare_blocks(values, onehot, masks, low=1, blocks=blocks)
            packed = join_blocks(planes, top, masks, products, tables=tables, lead=True)
        for rows, plain in ((2, True), (5, False)):
            dealt = ring.zeros((rows, 9))
            subtract_from_dealt(values, masks, dealt, multiplier=1, shift=1, plain=plain)
        select(values, packed, dealt, multiplier=1, shift=1, lead=True)
        select_plain(values, packed, values, dealt, lead=True)
