"""Are contributions short enough? Three parties find out one bit about each, and nothing else.

`norm_bound.py` says what is checked and why it suffices. The steps, for all contributions of a round at once:
1. `toss_coin`: the seed of the sketches, when no contribution can change any more.
2. Each party sketches its own shares (`sketch.py`), the only work that grows with the model.
3. `check_norms` on additive shares of each contribution's sketch and of its metrics, which have public
   bounds: convert -> [[v]]; sign bits of (upper - v) and (v - lower) for every value; sum of squared buckets
   in Z_2^64 (`square_sum.py`) and the sign bit of K tau^2 - sum; then accepted = [number of broken rules <=
   0].

Why counting broken rules is sound: each is a shared bit that is exactly 0 or 1, so their number lies between
0 and 2 (n + metrics) + 1, far from any wrap, and its sign is compared in a window that drops no bit. To add
up the overshoots instead, masked or not, would not do: four of 2^30 are 0 modulo 2^32. The sum of squares is
garbage when a bucket is out of range, and then a rule is broken whatever it says.

Who learns what. The dealer receives one message: the verdicts. An evaluator receives, besides one uniform
share of every dealt value: converted and opened values under masks of which it does not know the peer's half,
bits under fresh dealt masks, and last the peer's share of each verdict, which with its own is the verdict
and, since the shares of a dealt bit are uniform, nothing more. Norm, number of broken rules, and which rule
it was stay shared. The verdict of an honest contribution is known beforehand (but for 1e-9); that of a
dishonest one tells about that one only.

When the coin is tossed matters: a hospital that knew the seed could hide any vector whose sketch is zero. So
it is tossed after every party has said which contributions it holds complete, and a round that is closing
takes none. A party of this model follows the protocol, so hospitals that collude with one learn its 16 bytes
in time for nothing. Against a party that waits for the others' coins before it draws its own, they would have
to be committed to first.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput, PeerViolation
from libs.core.ids import PARTIES, PartyId
from libs.mpc.cost import Cost, costs
from libs.mpc.norm_bound import NORM_BITS, RANGE_RESOLUTION, NormBound
from libs.mpc.prg import SEED_BYTES, MaskSource
from libs.mpc.program import ArraySpec, Program, Round, swap
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked import convert
from libs.mpc.schemes.masked import open as open_
from libs.mpc.schemes.masked import sign_bit as sign_
from libs.mpc.schemes.masked import square_sum as square_
from libs.mpc.schemes.masked.roles import Dealer, Evaluator, Roles
from libs.mpc.schemes.masked.sign_bit import SignWindow
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape
from libs.mpc.sketch import SKETCH_LENGTH

METRIC_LIMIT = 1 << 27
"""Metrics lie in [0, this): 32 hospitals' cannot wrap around together. 2^12 beyond either end goes
unnoticed."""

MAX_METRICS = 1 << 16

_VALUES, _RANGE, _SQUARES, _NORM, _VERDICT = (
    f"check/{step}" for step in ("values", "range", "squares", "norm", "verdict")
)
_NORM_LOW = Ring.RING_64.bits - NORM_BITS
RANGE_WINDOW = SignWindow(low=RANGE_RESOLUTION.bit_length() - 1, bits=20, ring=Ring.RING_32)
"""Its top bit is the ring's: a value may be anything, not only what an honest hospital sends."""
_NORM_WINDOW = SignWindow(low=_NORM_LOW, bits=NORM_BITS, ring=Ring.RING_64)
_VERDICT_WINDOW = SignWindow(low=0, bits=20, ring=Ring.RING_32)
_U8 = np.dtype(np.uint8)


def toss_coin(me: PartyId, computation_id: str) -> Program[bytes]:
    """A seed that nobody could know before the last of three parties drew its part. Rounds: 1.

    SHA-256 of everybody's 16 bytes from the system's generator, bound to the computation; cut to 128 bits.
    """
    peers = [party for party in PARTIES if party != me]
    mine = np.frombuffer(secrets.token_bytes(SEED_BYTES), dtype=_U8)
    spec = {"coin": ArraySpec(_U8, (SEED_BYTES,))}
    inbox = yield Round("check/coin", {peer: {"coin": mine} for peer in peers}, dict.fromkeys(peers, spec))
    coins = {me: mine, **{peer: inbox[peer]["coin"] for peer in peers}}
    name = computation_id.encode()
    text = b"trefoil check v1" + len(name).to_bytes(4, "big") + name
    text += b"".join(coins[party].tobytes() for party in PARTIES)
    return hashlib.sha256(text).digest()[:SEED_BYTES]


@dataclass(frozen=True)
class _Sizes:
    """h contributions of `values` numbers: the sketch's, then metrics."""

    h: int
    values: int

    @property
    def rules(self) -> int:
        """Of one contribution: two bounds a value, and its norm."""
        return 2 * self.values + 1

    @property
    def dealt_bytes(self) -> int:
        """What the second evaluator is sent after its part of the values."""
        range_ = sign_.sign_bit_cost(self.h * 2 * self.values, RANGE_WINDOW)
        norm = sign_.sign_bit_cost(self.h, _NORM_WINDOW)
        verdict = sign_.sign_bit_cost(self.h, _VERDICT_WINDOW)
        squares = square_.square_sum_cost(self.h * SKETCH_LENGTH)
        return (range_ + norm + verdict + squares).dealt_bytes


def check_cost(contributions: int, metrics: int) -> Cost:
    """Ten rounds between the evaluators. Each also sends the dealer one byte a contribution, the verdicts."""
    h, values = contributions, SKETCH_LENGTH + metrics
    steps = [
        convert.convert_cost(h * values, Ring.RING_32),
        sign_.sign_bit_cost(h * 2 * values, RANGE_WINDOW),
        square_.square_sum_cost(h * SKETCH_LENGTH),
        open_.open_cost(h, Ring.RING_64),
        sign_.sign_bit_cost(h, _NORM_WINDOW),
        open_.open_cost(h, Ring.RING_32),
        sign_.sign_bit_cost(h, _VERDICT_WINDOW),
        Cost(rounds=1, online_bytes=h * Ring.RING_32.element_bytes),
    ]
    return sum(steps, Cost())


@costs(check_cost)
def check_norms(
    me: PartyId,
    roles: Roles,
    sources: Mapping[PartyId, MaskSource],
    shares: RingArray,
    bounds: Sequence[NormBound],
) -> Program[tuple[bool, ...]]:
    """Which contributions keep to their bounds; the same at every party.

    `shares` (h, SKETCH_LENGTH + metrics) are this party's additive shares, 32-bit ring; `bounds` one for each
    contribution. `sources` holds the masks of this computation shared with each peer.
    """
    h, values = shares.shape
    if h != len(bounds) or h == 0 or not 0 <= values - SKETCH_LENGTH <= MAX_METRICS:
        raise InvalidInput(
            f"A check takes one bound a contribution, and up to {MAX_METRICS} metrics in each."
        )
    sizes = _Sizes(h, values)
    if me == roles.dealer:
        dealer = Dealer(sources[roles.first], sources[roles.second])
        return (yield from _check_as_dealer(dealer, roles, shares, sizes))
    evaluator = Evaluator.of(me, roles, sources[roles.dealer])
    return (yield from _check_as_evaluator(evaluator, shares, bounds, sizes))


def _check_as_dealer(
    dealer: Dealer, roles: Roles, shares: RingArray, sizes: _Sizes
) -> Program[tuple[bool, ...]]:
    mask = yield from convert.convert_as_dealer(dealer, roles, _VALUES, shares, Ring.RING_32)
    tape = DealerTape(dealer.first, dealer.second)
    # upper - v has the mask -l, v - lower the mask l.
    sign_.deal_sign_bit(tape, _RANGE, np.stack([-mask, mask]), RANGE_WINDOW)
    square_.deal_square_sum(tape, _SQUARES, mask[:, :SKETCH_LENGTH])
    for label, window in ((_NORM, _NORM_WINDOW), (_VERDICT, _VERDICT_WINDOW)):
        opened = open_.deal_open(tape, label, (sizes.h,), window.ring)
        sign_.deal_sign_bit(tape, f"{label}/sign", opened, window)
    yield Round("check/deal", {roles.second: {"dealt": tape.take_all()}})
    spec = {"accepted": ArraySpec(_U8, (sizes.h,))}
    inbox = yield Round("check/told", awaits={roles.first: spec, roles.second: spec})
    told, again = (inbox[party]["accepted"] for party in (roles.first, roles.second))
    if (told != again).any():
        rule = "the evaluators do not say the same of the contributions"
        raise PeerViolation(computation="check", sender=int(roles.first), rule=rule)
    return _verdicts(told, sender=roles.first)


def _check_as_evaluator(
    evaluator: Evaluator, shares: RingArray, bounds: Sequence[NormBound], sizes: _Sizes
) -> Program[tuple[bool, ...]]:
    tape = EvaluatorTape(evaluator.masks, lead=evaluator.lead)
    m, _ = yield from convert.convert_as_evaluator(evaluator, evaluator.dealer, _VALUES, shares, Ring.RING_32)
    if not evaluator.lead:
        spec = {"dealt": ArraySpec(_U8, (sizes.dealt_bytes,))}
        inbox = yield Round("check/deal", awaits={evaluator.dealer: spec})
        tape.supply(inbox[evaluator.dealer]["dealt"])
    material = sign_.prepare_sign_bit(tape, _RANGE, 2 * m.size, RANGE_WINDOW)
    squares = square_.prepare_square_sum(tape, _SQUARES, (sizes.h, SKETCH_LENGTH))

    lower, upper = _limits(bounds, sizes)
    kept = yield from sign_.sign_bit(
        evaluator, _RANGE, np.stack([upper - m, m - lower]), material, RANGE_WINDOW
    )
    square_sum = square_.square_sum(m[:, :SKETCH_LENGTH], squares, lead=evaluator.lead)
    short = yield from _sign_of_opened(
        evaluator, tape, _NORM, _room_left(square_sum, bounds, lead=evaluator.lead), _NORM_WINDOW
    )
    # A share modulo 2^64 is one modulo 2^32 as well. Minus the number of broken rules:
    broken = kept.sum(axis=(0, 2), dtype=np.uint32) + short.astype(np.uint32)
    if evaluator.lead:
        broken -= Ring.RING_32.constant(sizes.rules)
    mine = yield from _sign_of_opened(evaluator, tape, _VERDICT, broken, _VERDICT_WINDOW)
    theirs = yield from swap("check/reveal", evaluator.peer, "accepted", mine)
    accepted = mine + theirs
    verdicts = _verdicts(accepted, sender=evaluator.peer)
    yield Round("check/told", {evaluator.dealer: {"accepted": accepted.astype(_U8)}})
    return verdicts


def _limits(bounds: Sequence[NormBound], sizes: _Sizes) -> tuple[RingArray, RingArray]:
    """The lowest and highest allowed value of everything. Shape (h, values) each."""
    lower, upper = (Ring.RING_32.zeros((sizes.h, sizes.values)) for _ in range(2))
    upper[:, SKETCH_LENGTH:] = METRIC_LIMIT - 1
    buckets = np.array([bound.bucket for bound in bounds], dtype=np.uint32)[:, None]
    upper[:, :SKETCH_LENGTH], lower[:, :SKETCH_LENGTH] = buckets, -buckets
    return lower, upper


def _room_left(square_sum: RingArray, bounds: Sequence[NormBound], *, lead: bool) -> RingArray:
    """Shares of (K tau^2 - sum) times a public power of two, which brings every bound's window to the same
    bits."""
    shift = np.array([_NORM_LOW - bound.resolution_bits for bound in bounds], dtype=np.uint64)
    share = -square_sum
    if lead:
        share += np.array([bound.square for bound in bounds], dtype=np.uint64)
    return share << shift


def _sign_of_opened(
    evaluator: Evaluator, tape: EvaluatorTape, label: str, share: RingArray, window: SignWindow
) -> Program[RingArray]:
    """Open an additive sharing under a fresh mask, and compare. Rounds: 3."""
    mask = open_.prepare_open(tape, label, share.shape, window.ring)
    material = sign_.prepare_sign_bit(tape, f"{label}/sign", share.size, window)
    m = yield from open_.open_masked(evaluator, label, share, mask)
    return (yield from sign_.sign_bit(evaluator, f"{label}/sign", m, material, window))


def _verdicts(accepted: npt.NDArray[np.unsignedinteger], *, sender: PartyId) -> tuple[bool, ...]:
    if (accepted > 1).any():
        raise PeerViolation(computation="check", sender=int(sender), rule="a verdict is neither 0 nor 1")
    return tuple(bool(bit) for bit in accepted)
