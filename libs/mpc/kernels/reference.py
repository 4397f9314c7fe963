"""The sign protocol's kernels in plain numpy: slow, short, and the oracle of `fused.py`.

Shapes: n values; `onehot` (blocks, n) uint16; packed bit planes (planes, ceil(n/8)) uint8, least
significant bit first. `lead` is true for the one evaluator that adds public constants.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from libs.mpc.kernels.tables import EQUAL, LESS, PARITY16, TOP_EQUAL, TOP_NEGATIVE, JoinTables
from libs.mpc.ring import RingArray

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
Products = npt.NDArray[np.unsignedinteger]


def scale_down(values: RingArray, *, multiplier: int, shift: int) -> RingArray:
    """floor(values * multiplier / 2^shift) modulo 2^k, exact for multiplier < 2^32 and shift <= 32."""
    if values.dtype.itemsize == 4:
        return ((values.astype(np.uint64) * np.uint64(multiplier)) >> np.uint64(shift)).astype(values.dtype)
    high, low = values >> np.uint64(32), values & np.uint64(0xFFFFFFFF)
    return ((high * np.uint64(multiplier)) << np.uint64(32 - shift)) + (
        (low * np.uint64(multiplier)) >> np.uint64(shift)
    )


def _blocks_of(values: RingArray, low: int, blocks: int) -> npt.NDArray[np.int64]:
    window = (values >> values.dtype.type(low)) & values.dtype.type((1 << (4 * blocks)) - 1)
    return np.stack(
        [(window >> values.dtype.type(4 * i)) & values.dtype.type(15) for i in range(blocks)], 1
    ).astype(np.int64)


def compare_blocks(m: RingArray, onehot: U16, masks: U16, *, low: int, blocks: int) -> tuple[U8, U8]:
    """This evaluator's share of the masked block comparisons.

    Returns (packed planes of the opened bits, shares of the top block's "negative" bit (n,)).
    """
    block = _blocks_of(m, low, blocks)
    top = blocks - 1
    negative = PARITY16[onehot[top] & TOP_NEGATIVE[block[:, top]]]
    bits = [PARITY16[onehot[top] & TOP_EQUAL[block[:, top]]]]
    for i in range(top - 1, -1, -1):
        bits.append(PARITY16[onehot[i] & LESS[block[:, i]]])
        if i:
            bits.append(PARITY16[onehot[i] & EQUAL[block[:, i]]])
    planes = np.stack(bits) ^ np.stack(
        [(masks >> np.uint16(i)).astype(np.uint8) & 1 for i in range(len(bits))]
    )
    return np.packbits(planes, axis=1, bitorder="little"), negative


def join_blocks(opened: U8, top: U8, masks: U16, products: Products, *, tables: JoinTables, lead: bool) -> U8:
    """This evaluator's share of "not negative" under its sign mask, bit 15 of `masks`. Shape (ceil(n/8),)."""
    n = len(top)
    planes = np.unpackbits(opened, axis=1, count=n, bitorder="little")
    pattern = sum((planes[i].astype(np.int64) << i for i in range(tables.opened)), np.zeros(n, np.int64))
    own = (masks & np.uint16((1 << tables.opened) - 1)).astype(np.uint64)
    word = own | (products.astype(np.uint64) << np.uint64(tables.opened))
    chosen = word & tables.coefficients[pattern]
    folded = chosen ^ (chosen >> np.uint64(32))
    folded = (folded ^ (folded >> np.uint64(16))) & np.uint64(0xFFFF)
    share = PARITY16[folded.astype(np.int64)] ^ top ^ (masks >> np.uint16(15)).astype(np.uint8)
    if lead:
        share = share ^ tables.constant[pattern] ^ 1
    return np.packbits(share & 1, bitorder="little")


def deal_blocks(r: RingArray, masks: U16, *, low: int, tables: JoinTables) -> tuple[U16, Products]:
    """What the dealer shares: one-hot blocks of r (blocks, n), and products of the bits' masks (n,)."""
    onehot = np.ascontiguousarray((1 << _blocks_of(r, low, tables.blocks)).astype(np.uint16).T)
    pattern = (masks & np.uint16((1 << tables.opened) - 1)).astype(np.int64)
    return onehot, tables.monomials[pattern].astype(tables.product_dtype)


def dealt_values(r: RingArray, masks: U16, *, multiplier: int, shift: int, plain: bool) -> RingArray:
    """What the dealer shares for a selection: b and b*r; or b, T, B, b*T, b*B. Shape (2 or 5, n)."""
    b = (masks >> np.uint16(15)).astype(r.dtype)
    if plain:
        return np.stack([b, b * r])
    floor_r, wrap = rescale_secret(r, multiplier=multiplier, shift=shift)
    return np.stack([b, floor_r, wrap, b * floor_r, b * wrap])


def select(
    m: RingArray, positive: U8, dealt: RingArray, *, multiplier: int, shift: int, lead: bool
) -> RingArray:
    """This evaluator's share of relu(z) * multiplier / 2^shift, where z = m - r.

    `positive` (ceil(n/8),) packs the sign bits under the masks b; `dealt` (5, n) holds shares of
    b, T, B, b*T and b*B with T = floor(r * multiplier / 2^shift) and B = 2^k multiplier / 2^shift
    where r's top bit is set, else 0.
    """
    public, wraps = rescale_public(m, multiplier=multiplier, shift=shift)
    s = np.unpackbits(positive, count=len(m), bitorder="little").astype(bool)
    b, t, big, bt, b_big = dealt
    kept = b * public - bt + wraps * b_big
    full = (public if lead else np.zeros_like(public)) - t + wraps * big
    share: RingArray = np.where(s, full - kept, kept)
    return share


def select_plain(m: RingArray, positive: U8, mask: RingArray, dealt: RingArray, *, lead: bool) -> RingArray:
    """This evaluator's share of relu(z), z = m - r, without rescaling; no bound on z beyond the window.

    `mask` (n,) is this evaluator's half of r; `dealt` (2, n) holds shares of b and b*r.
    """
    s = np.unpackbits(positive, count=len(m), bitorder="little").astype(bool)
    b, br = dealt
    kept = b * m - br
    full = (m if lead else np.zeros_like(m)) - mask
    share: RingArray = np.where(s, full - kept, kept)
    return share


def rescale_public(m: RingArray, *, multiplier: int, shift: int) -> tuple[RingArray, RingArray]:
    """The public parts of z * multiplier / 2^shift: (floor(m' q) - floor(2^(k-2) q), 1 - msb(m'))."""
    k = m.dtype.itemsize * 8
    offset = m.dtype.type(1 << (k - 2))
    shifted = m + offset
    public = scale_down(shifted, multiplier=multiplier, shift=shift)
    public = public - m.dtype.type((((1 << (k - 2)) * multiplier) >> shift) % (1 << k))
    return public, m.dtype.type(1) - (shifted >> m.dtype.type(k - 1))


def rescale_secret(r: RingArray, *, multiplier: int, shift: int) -> tuple[RingArray, RingArray]:
    """The dealer's parts: T = floor(r q), and B = 2^k q where r's top bit is set, else 0."""
    k = r.dtype.itemsize * 8
    wrap = r.dtype.type((multiplier << (k - shift)) % (1 << k))
    return scale_down(r, multiplier=multiplier, shift=shift), (r >> r.dtype.type(k - 1)) * wrap


def sketch(values: RingArray, words: npt.NDArray[np.uint64], *, sketches: int, buckets: int) -> RingArray:
    """CountSketch of `values` (n,): coordinate i counts with sign s_k(i) in bucket h_k(i) of sketch k.

    h_k and s_k are 11 bits of `words` (n,), the k-th from below; s_k is -1 where the upper one is set.
    Shape (sketches * buckets,), modulo 2^k.
    """
    table = np.zeros((sketches, buckets), dtype=values.dtype)
    for k in range(sketches):
        index = ((words >> np.uint64(11 * k)) & np.uint64(2047)).astype(np.int64)
        np.add.at(table[k], index % buckets, np.where(index < buckets, values, -values))
    return table.reshape(-1)
