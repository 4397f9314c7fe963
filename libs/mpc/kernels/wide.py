"""The one-round comparison's kernels as loops that the compiler turns into vector instructions.

As `fused.py`: compiled once and cached, without the GIL, no branch on a secret, and equal to
`wide_reference.py` bit for bit. Blocks are read in tiles that stay in the first-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from libs.mpc.kernels.fused import transpose_bits
from libs.mpc.kernels.scaling import rescale_public, rescale_secret
from libs.mpc.kernels.wide_reference import OPENED, U8, WideWindow, Words, word_dtype, words_of
from libs.mpc.ring import Ring, RingArray

_compiled = njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
_TILE = 1024


@_compiled
def _read_block(m, low, block_mask, hot, less, equal):  # type: ignore[no-untyped-def]
    """Shares of [M < R] and [M = R], one byte each."""
    found = np.empty(_TILE, dtype=np.uint64)
    chosen = np.empty(_TILE, dtype=np.uint64)
    for start in range(0, m.size, _TILE):
        values = m[start : start + _TILE]
        found[:] = 0
        chosen[:] = 0
        for w in range(hot.shape[0]):
            row = hot[w, start : start + _TILE]
            for i in range(values.size):
                block = np.uint64(values[i] >> low) & block_mask
                word, bit, mine = block >> np.uint64(6), block & np.uint64(63), np.uint64(row[i])
                here = np.uint64(0) - np.uint64(word == np.uint64(w))
                above = np.uint64(0) - np.uint64(word < np.uint64(w))
                found[i] ^= mine & ((((~np.uint64(1)) << bit) & here) | above)
                chosen[i] ^= (mine >> bit) & here
        less_here, equal_here = less[start : start + _TILE], equal[start : start + _TILE]
        for i in range(values.size):
            x = found[i]
            x ^= x >> np.uint64(32)
            x ^= x >> np.uint64(16)
            x ^= x >> np.uint64(8)
            x ^= x >> np.uint64(4)
            x ^= x >> np.uint64(2)
            x ^= x >> np.uint64(1)
            less_here[i] = np.uint8(x & np.uint64(1))
            equal_here[i] = np.uint8(chosen[i] & np.uint64(1))


@_compiled
def _gather_bits(m, sign, lead, less, equal, rest, masks, bits):  # type: ignore[no-untyped-def]
    for v in range(m.size):
        negative = less[v] ^ (np.uint8(m[v] >> sign) & lead)
        bits[v] = (negative | (equal[v] << np.uint8(1)) | (rest[v] << np.uint8(2))) ^ masks[v]


@_compiled
def _deal_block(r, low, block_mask, hot):  # type: ignore[no-untyped-def]
    for w in range(hot.shape[0]):
        row = hot[w]
        for v in range(r.size):
            block = np.uint64(r[v] >> low) & block_mask
            here = np.uint64((block >> np.uint64(6)) == np.uint64(w))
            row[v] ^= row.dtype.type(here << (block & np.uint64(63)))


@_compiled
def _basis(r, sign, masks, e):  # type: ignore[no-untyped-def]
    kind = r.dtype.type
    for i in range(r.size):
        a = kind(masks[i] & np.uint8(1)) ^ ((r[i] >> sign) & kind(1))
        turn = kind(1) - kind(2) * a
        p = kind((masks[i] >> np.uint8(1)) & np.uint8(1))
        g = kind((masks[i] >> np.uint8(2)) & np.uint8(1))
        e[0, i], e[1, i], e[2, i], e[3, i] = a, turn * p, turn * g, turn * p * g


@_compiled
def _subtract(values, out):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        out[i] = values[i] - out[i]


@_compiled
def _subtract_product(left, right, out):  # type: ignore[no-untyped-def]
    for i in range(right.size):
        out[i] = left[i] * right[i] - out[i]


@_compiled
def _deal_plain(r, sign, masks, out):  # type: ignore[no-untyped-def]
    # Row by row within a tile: many rows at once would share the same few cache sets.
    e = np.empty((4, _TILE), dtype=r.dtype)
    for start in range(0, r.size, _TILE):
        end = min(start + _TILE, r.size)
        _basis(r[start:end], sign, masks[start:end], e)
        for j in range(4):
            _subtract(e[j, : end - start], out[j, start:end])
            _subtract_product(e[j], r[start:end], out[4 + j, start:end])


@_compiled
def _deal_scaled(r, sign, masks, floor_r, wrap, out):  # type: ignore[no-untyped-def]
    e = np.empty((4, _TILE), dtype=r.dtype)
    for start in range(0, r.size, _TILE):
        end = min(start + _TILE, r.size)
        t, big = floor_r[start:end], wrap[start:end]
        _basis(r[start:end], sign, masks[start:end], e)
        _subtract(t, out[4, start:end])
        _subtract(big, out[9, start:end])
        for j in range(4):
            _subtract(e[j, : end - start], out[j, start:end])
            _subtract_product(e[j], t, out[5 + j, start:end])
            _subtract_product(e[j], big, out[10 + j, start:end])


@_compiled
def _coefficients(pattern, kind):  # type: ignore[no-untyped-def]
    a = kind(pattern & np.uint8(1))
    p = kind((pattern >> np.uint8(1)) & np.uint8(1))
    g = kind((pattern >> np.uint8(2)) & np.uint8(1))
    one, two, zero = kind(1), kind(2), kind(0)
    s_a, s_p, s_g, both = one - two * a, one - two * p, one - two * g, p * g
    minus = zero - s_a
    return one - a - s_a * both, s_a * (two * both - one), minus * g * s_p, minus * p * s_g, minus * s_p * s_g


@_compiled
def _select_plain(m, pattern, mask, dealt, lead, out):  # type: ignore[no-untyped-def]
    kind = m.dtype.type
    for v in range(m.size):
        c0, c1, c2, c3, c4 = _coefficients(pattern[v], kind)
        keep = lead * c0 + c1 * dealt[0, v] + c2 * dealt[1, v] + c3 * dealt[2, v] + c4 * dealt[3, v]
        r = c0 * mask[v] + c1 * dealt[4, v] + c2 * dealt[5, v] + c3 * dealt[6, v] + c4 * dealt[7, v]
        out[v] = keep * m[v] - r


@_compiled
def _select_scaled(m, public, pattern, dealt, quarter, top, lead, out):  # type: ignore[no-untyped-def]
    kind = m.dtype.type
    for v in range(m.size):
        c0, c1, c2, c3, c4 = _coefficients(pattern[v], kind)
        keep = lead * c0 + c1 * dealt[0, v] + c2 * dealt[1, v] + c3 * dealt[2, v] + c4 * dealt[3, v]
        t = c0 * dealt[4, v] + c1 * dealt[5, v] + c2 * dealt[6, v] + c3 * dealt[7, v] + c4 * dealt[8, v]
        big = c0 * dealt[9, v] + c1 * dealt[10, v] + c2 * dealt[11, v] + c3 * dealt[12, v] + c4 * dealt[13, v]
        wraps = kind(1) - (kind(m[v] + quarter) >> top)
        out[v] = keep * public[v] - t + wraps * big


def _places(ring: Ring, window: WideWindow) -> tuple[tuple[Any, np.uint64], tuple[Any, np.uint64]]:
    """(shift, mask) of the upper block and of the lower block."""
    return (
        (ring.constant(window.low + window.lower_bits), np.uint64((1 << window.upper_bits) - 1)),
        (ring.constant(window.low), np.uint64((1 << window.lower_bits) - 1)),
    )


def compare(m: RingArray, upper: Words, lower: Words, masks: U8, *, window: WideWindow, lead: bool) -> U8:
    """See `wide_reference.compare`."""
    n, ring = len(m), Ring.of(m)
    (top, top_mask), (low, low_mask) = _places(ring, window)
    less, equal, rest, unused = (np.empty(n, dtype=np.uint8) for _ in range(4))
    _read_block(m, top, top_mask, upper, less, equal)
    _read_block(m, low, low_mask, lower, rest, unused)
    bits = np.zeros((n + 7) // 8 * 8, dtype=np.uint8)
    _gather_bits(m, ring.constant(window.sign), np.uint8(lead), less, equal, rest, masks, bits)
    transpose_bits(bits.view(np.uint64))
    return np.ascontiguousarray(bits.reshape(-1, 8).T[:OPENED])


def add_dealt_blocks(r: RingArray, upper: Words, lower: Words, *, window: WideWindow) -> None:
    """XOR `wide_reference.one_hot_blocks` into the first evaluator's shares."""
    for (shift, mask), hot in zip(_places(Ring.of(r), window), (upper, lower), strict=True):
        _deal_block(r, shift, mask, hot)


def subtract_from_dealt(
    r: RingArray,
    masks: U8,
    draws: RingArray,
    *,
    window: WideWindow,
    multiplier: int,
    shift: int,
    plain: bool,
) -> None:
    """Replace the first evaluator's shares by `wide_reference.dealt_values` minus them."""
    sign = Ring.of(r).constant(window.sign)
    if plain:
        _deal_plain(r, sign, masks, draws)
        return
    _deal_scaled(r, sign, masks, *rescale_secret(r, multiplier=multiplier, shift=shift), draws)


def _patterns(opened: U8) -> U8:
    groups = np.zeros((opened.shape[1], 8), dtype=np.uint8)
    groups[:, :OPENED] = opened.T
    transpose_bits(groups.reshape(-1).view(np.uint64))
    return groups.reshape(-1)


def select(
    m: RingArray, opened: U8, dealt: RingArray, *, multiplier: int, shift: int, lead: bool
) -> RingArray:
    """See `wide_reference.select`."""
    ring, out = Ring.of(m), np.empty_like(m)
    public = rescale_public(m, multiplier=multiplier, shift=shift)
    quarter, top = ring.constant(1 << (ring.bits - 2)), ring.constant(ring.bits - 1)
    _select_scaled(m, public, _patterns(opened), dealt, quarter, top, ring.constant(int(lead)), out)
    return out


def select_plain(m: RingArray, opened: U8, mask: RingArray, dealt: RingArray, *, lead: bool) -> RingArray:
    """See `wide_reference.select_plain`."""
    out = np.empty_like(m)
    _select_plain(m, _patterns(opened), mask, dealt, Ring.of(m).constant(int(lead)), out)
    return out


def warm_up() -> None:
    """Compile every kernel for every type it meets."""
    for ring in Ring:
        values, masks = ring.zeros((9,)), np.zeros(9, dtype=np.uint8)
        for bits in (8, 12, 16):
            window = WideWindow(low=1, bits=bits)
            upper, lower = (
                np.zeros((words_of(b), 9), word_dtype(b)) for b in (window.upper_bits, window.lower_bits)
            )
            add_dealt_blocks(values, upper, lower, window=window)
            opened = compare(values, upper, lower, masks, window=window, lead=True)
        for rows, plain in ((8, True), (14, False)):
            dealt = ring.zeros((rows, 9))
            subtract_from_dealt(values, masks, dealt, window=window, multiplier=1, shift=1, plain=plain)
            if plain:
                select_plain(values, opened, values, dealt, lead=True)
            else:
                select(values, opened, dealt, multiplier=1, shift=1, lead=True)
