"""<x> -> [[x]]: from three additive shares to a masked value (protocol section 2).

The dealer sends x_D - t to the second evaluator, t drawn from the key it shares with the first. The first
sends x_1 + t + l1, the second x_2 + (x_D - t) + l2; both add up m. Each message is uniform to its receiver:
the second evaluator does not know t nor l1, the first does not know l2.
"""

from __future__ import annotations

from libs.core.ids import PartyId
from libs.mpc.cost import Cost, costs
from libs.mpc.program import ArraySpec, Program, Round, swap
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked.roles import Dealer, Evaluator, Roles


def convert_cost(n: int, ring: Ring) -> Cost:
    """The dealer sends n elements, then one round of n elements each way."""
    return Cost(rounds=1, online_bytes=n * ring.element_bytes, dealt_bytes=n * ring.element_bytes)


def dealer_masks(dealer: Dealer, label: str, shape: tuple[int, ...], ring: Ring) -> RingArray:
    """l = l1 + l2 of the converted value, known to the dealer alone."""
    first = dealer.first.stream(f"{label}/mask").ring(shape, ring)
    return first + dealer.second.stream(f"{label}/mask").ring(shape, ring)


def convert_as_dealer(
    dealer: Dealer, roles: Roles, label: str, share: RingArray, ring: Ring
) -> Program[RingArray]:
    """Send this party's share on, split in two; returns l = l1 + l2."""
    t = dealer.first.stream(f"{label}/split").ring(share.shape, ring)
    yield Round(f"{label}/split", {roles.second: {"part": share - t}})
    return dealer_masks(dealer, label, share.shape, ring)


@costs(convert_cost)
def convert_as_evaluator(
    evaluator: Evaluator, dealer: PartyId, label: str, share: RingArray, ring: Ring
) -> Program[tuple[RingArray, RingArray]]:
    """Returns (m, l_j). Same shape as `share`."""
    mask = evaluator.masks.stream(f"{label}/mask").ring(share.shape, ring)
    if evaluator.lead:
        part = evaluator.masks.stream(f"{label}/split").ring(share.shape, ring)
    else:
        spec = {"part": ArraySpec(share.dtype, share.shape)}
        inbox = yield Round(f"{label}/split", awaits={dealer: spec})
        part = inbox[dealer]["part"]
    mine = share + part + mask
    theirs = yield from swap(f"{label}/open", evaluator.peer, "m", mine)
    return mine + theirs, mask
