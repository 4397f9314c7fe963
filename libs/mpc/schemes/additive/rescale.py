"""<x> -> <q x> for a public positive fraction q, within one unit: three shares in, three shares out.

Used when some hospitals of a round dropped out: the sum over the survivors is divided by the sum of
their weights. <x> is converted to a masked value, rescaled (`masked/rescale.py`), and the evaluators'
two shares are spread over three again with masks from each pair's key, so that no two parties
together learn more than they did.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from libs.core.errors import InvalidInput
from libs.core.ids import PartyId
from libs.mpc.cost import Cost, costs
from libs.mpc.prg import MaskSource
from libs.mpc.program import ArraySpec, Program, Round
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked import rescale as masked_rescale
from libs.mpc.schemes.masked.convert import convert_as_dealer, convert_as_evaluator
from libs.mpc.schemes.masked.roles import Dealer, Evaluator, Roles
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape

_LABEL = "rescale"


@dataclass(frozen=True)
class PublicRatio:
    """multiplier / 2^shift, the closest such fraction to the one asked for."""

    multiplier: int
    shift: int

    @classmethod
    def nearest(cls, ratio: Fraction) -> PublicRatio:
        """Relative error at most 2^-31 for ratios of 1/2 and more. `InvalidInput` outside (0, 2^31)."""
        if not 0 < ratio < 1 << 31:
            raise InvalidInput("A public ratio must be positive and below 2^31.")
        shift = min(32, 32 - int(ratio).bit_length())
        multiplier = min(round(ratio * (1 << shift)), (1 << 32) - 1)
        while shift and multiplier % 2 == 0:
            multiplier, shift = multiplier // 2, shift - 1
        return cls(multiplier, shift)

    @property
    def value(self) -> Fraction:
        """The fraction that is really used."""
        return Fraction(self.multiplier, 1 << self.shift)


def rescale_cost(n: int, ring: Ring) -> Cost:
    """Conversion, the dealt pair, and one more message to the dealer (counted as dealt)."""
    return Cost(rounds=1, online_bytes=n * ring.element_bytes, dealt_bytes=3 * n * ring.element_bytes)


def _rescale_as_dealer(
    dealer: Dealer, roles: Roles, share: RingArray, ratio: PublicRatio, ring: Ring
) -> Program[RingArray]:
    mask = yield from convert_as_dealer(dealer, roles, _LABEL, share, ring)
    tape = DealerTape(dealer.first, dealer.second)
    masked_rescale.deal_rescale(tape, _LABEL, mask, multiplier=ratio.multiplier, shift=ratio.shift, ring=ring)
    yield Round(f"{_LABEL}/deal", {roles.second: {"dealt": tape.take_all()}})
    first = dealer.first.stream(f"{_LABEL}/spread").ring(share.shape, ring)
    return first + dealer.second.stream(f"{_LABEL}/spread").ring(share.shape, ring)


def _rescale_as_evaluator(
    evaluator: Evaluator, share: RingArray, ratio: PublicRatio, ring: Ring
) -> Program[RingArray]:
    tape = EvaluatorTape(evaluator.masks, lead=evaluator.lead)
    m, _ = yield from convert_as_evaluator(evaluator, evaluator.dealer, _LABEL, share, ring)
    if not evaluator.lead:
        size = 2 * share.size * ring.element_bytes
        spec = {"dealt": ArraySpec(np.dtype(np.uint8), (size,))}
        inbox = yield Round(f"{_LABEL}/deal", awaits={evaluator.dealer: spec})
        tape.supply(inbox[evaluator.dealer]["dealt"])
    dealt = masked_rescale.prepare_rescale(tape, _LABEL, share.size, ring)
    scaled = masked_rescale.rescale(
        m, dealt, multiplier=ratio.multiplier, shift=ratio.shift, lead=evaluator.lead
    )
    # The dealer adds what both evaluators take away.
    return scaled - evaluator.masks.stream(f"{_LABEL}/spread").ring(share.shape, ring)


@costs(rescale_cost)
def rescale_program(
    me: PartyId,
    roles: Roles,
    sources: dict[PartyId, MaskSource],
    share: RingArray,
    ratio: PublicRatio,
    ring: Ring,
) -> Program[RingArray]:
    """This party's share of ratio * x, from its share of x (n,); |x| and |ratio * x| below 2^(k-2).

    `sources` holds the masks of this computation shared with each of the two peers.
    """
    if me == roles.dealer:
        dealer = Dealer(sources[roles.first], sources[roles.second])
        return (yield from _rescale_as_dealer(dealer, roles, share, ratio, ring))
    evaluator = Evaluator.of(me, roles, sources[roles.dealer])
    return (yield from _rescale_as_evaluator(evaluator, share, ratio, ring))
