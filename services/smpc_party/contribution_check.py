"""A party's part in adding contributions up, and in checking each of them on the way.

Every share is read once: it is sketched and added in the same pass. Which ones broke the round's rules is
known after that (libs/mpc/norm_check.py says how, and why nothing else is), so those are read again and taken
off.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from libs.mpc.norm_bound import LEAST_NORM, NormBound
from libs.mpc.norm_check import check_cost
from libs.mpc.ring import Ring, RingArray
from libs.mpc.sketch import SKETCH_LENGTH, RunningSketches
from libs.rpc.identity import Identity
from services.smpc_party.domain import RoundSpec, StoredShare
from services.smpc_party.ports import Shares

_FRAMES_BYTES = 4096
"""For the coin, the verdicts, and the names around a check's messages."""

ENLARGED_BITS = 9
"""2^16 times this stays far from wrapping around."""

SIDE_BY_SIDE = 8
"""Shares read at once: the sketch's random words are drawn once for all of these."""


def check_bytes(spec: RoundSpec) -> int:
    """The most that one peer sends another for the check of a round; 0 without one."""
    if not spec.checked:
        return 0
    hospitals = len(spec.participants)
    rows = max(1, hospitals * (hospitals - 1)) if spec.same else hospitals
    cost = check_cost(rows, spec.metrics_length)
    return cost.online_bytes + cost.dealt_bytes + _FRAMES_BYTES


def bounds_of(spec: RoundSpec, hospitals: Sequence[Identity]) -> list[NormBound]:
    """What each hospital's contribution is held to: the round's largest norm times its weight."""
    weights = {participant.hospital: participant.weight for participant in spec.participants}
    return [
        NormBound.of(max_norm=spec.max_norm, weight=weights[hospital], length=spec.update_length)
        for hospital in hospitals
    ]


def differences(checked: RingArray) -> tuple[RingArray, list[NormBound]]:
    """Shares of what says whether two contributions are the same vector, and what that is held to.

    `checked` (n, SKETCH_LENGTH) are sketches. For each pair, in the order of `combinations`, the sketch of
    the difference; then, for each pair again, that times 2^ENLARGED_BITS; both are local.
    The first holds every coordinate of a difference below 2^16 or so, and then the second cannot wrap around:
    together they let differences pass whose norm is below about 50 units in the last place, which hospitals'
    processors may round apart. Shape (n (n - 1), SKETCH_LENGTH).
    """
    pairs = np.array(list(combinations(range(len(checked)), 2)))
    apart = checked[pairs[:, 0]] - checked[pairs[:, 1]]
    rows = np.concatenate([apart, apart << np.uint32(ENLARGED_BITS)])
    return rows, [NormBound(LEAST_NORM)] * len(rows)


def in_majority(passed: Sequence[bool], contributions: int) -> tuple[bool, ...]:
    """Which contributions more than half of all agree with, themselves included; none without a majority.

    `passed` says of each row of `differences` whether it was small.
    """
    pairs = list(combinations(range(contributions), 2))
    agree = np.eye(contributions, dtype=bool)
    for (i, j), near, enlarged in zip(pairs, passed[: len(pairs)], passed[len(pairs) :], strict=True):
        agree[i, j] = agree[j, i] = near and enlarged
    most = agree[np.argmax(agree.sum(axis=1))]
    return tuple((most if 2 * most.sum() > contributions else np.zeros_like(most)).tolist())


def add_share(shares: Shares, total: RingArray, share: StoredShare) -> None:
    """Add one to `total`, mod 2^k."""
    start = 0
    for piece in shares.pieces(share):
        total[start : start + len(piece)] += piece
        start += len(piece)


def add_up(shares: Shares, spec: RoundSpec, chosen: Sequence[StoredShare]) -> RingArray:
    """This party's share of the sum, mod 2^k. Shape (length,)."""
    total = spec.ring.zeros((spec.length,))
    for share in chosen:
        add_share(shares, total, share)
    return total


def add_up_and_sketch(
    shares: Shares, spec: RoundSpec, chosen: Sequence[StoredShare], seed: bytes
) -> tuple[RingArray, RingArray]:
    """The sum, and this party's shares of what is checked of each contribution.

    Shapes (length,) and (len(chosen), SKETCH_LENGTH + metrics_length): the update's sketch, then the metrics.
    """
    total = spec.ring.zeros((spec.length,))
    checked = Ring.RING_32.zeros((len(chosen), SKETCH_LENGTH + spec.metrics_length))
    for first in range(0, len(chosen), SIDE_BY_SIDE):
        few = slice(first, first + SIDE_BY_SIDE)
        _add_and_sketch(shares, spec, chosen[few], seed, total, checked[few])
    return total, checked


def _add_and_sketch(
    shares: Shares,
    spec: RoundSpec,
    few: Sequence[StoredShare],
    seed: bytes,
    total: RingArray,
    checked: RingArray,
) -> None:
    """Read a few shares side by side; add them to `total`, and write what is checked of each into its row."""
    running, start = RunningSketches(seed, count=len(few)), 0
    # strict: every share is read to its end, where it turns out whether it is whole.
    for pieces in zip(*map(shares.pieces, few), strict=True):
        size = len(pieces[0])
        update = max(0, min(start + size, spec.update_length) - start)
        running.add([piece[:update] for piece in pieces], total=total[start : start + update])
        place = SKETCH_LENGTH + start + update - spec.update_length
        for piece, row in zip(pieces, checked, strict=True):
            total[start + update : start + size] += piece[update:]
            if update < size:
                row[place : place + size - update] = piece[update:]
        start += size
    checked[:, :SKETCH_LENGTH] = running.buckets()


def take_off(shares: Shares, total: RingArray, refused: Sequence[StoredShare]) -> None:
    """Subtract contributions that were added."""
    for share in refused:
        start = 0
        for piece in shares.pieces(share):
            total[start : start + len(piece)] -= piece
            start += len(piece)
