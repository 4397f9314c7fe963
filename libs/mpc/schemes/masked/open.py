"""Opening an additive sharing between the evaluators under a fresh mask: shares of x become [[x]]."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from libs.mpc.cost import Cost, costs
from libs.mpc.program import ArraySpec, Program, Round, swap
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked.roles import Evaluator
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape


def open_cost(n: int, ring: Ring) -> Cost:
    """One ring element each way per value."""
    return Cost(rounds=1, online_bytes=n * ring.element_bytes)


def deal_open(tape: DealerTape, label: str, shape: tuple[int, ...], ring: Ring) -> RingArray:
    """The dealer's view of the opened value: its mask l1 + l2."""
    l1, l2 = tape.masks(f"{label}/mask", shape, ring)
    l1 += l2
    return l1


def prepare_open(tape: EvaluatorTape, label: str, shape: tuple[int, ...], ring: Ring) -> RingArray:
    """This evaluator's half of the mask."""
    return tape.masks(f"{label}/mask", shape, ring)


@costs(open_cost)
def open_masked(evaluator: Evaluator, label: str, share: RingArray, mask: RingArray) -> Program[RingArray]:
    """m = x + l1 + l2, known to both evaluators and uniform because neither knows the other's mask.

    Each sends its share plus its own mask (protocol section 4). Same shape as `share`.
    """
    mine = share + mask
    theirs = yield from swap(label, evaluator.peer, "m", mine)
    m: RingArray = mine + theirs
    return m


@costs(open_cost)
def open_in_slices(
    evaluator: Evaluator,
    label: str,
    shares: Iterable[RingArray],
    cuts: tuple[tuple[slice, ...], ...],
    mask: RingArray,
) -> Program[RingArray]:
    """`open_masked` of a value whose share is computed slice by slice: each is sent before the next is made.

    `cuts` select the slices, in the order of `shares`, out of the shape of `mask`. The same messages' bytes
    under the same masks, and one round: nobody waits before everything is sent.
    """
    peer = evaluator.peer
    m = np.empty_like(mask)
    for number, (cut, share) in enumerate(zip(cuts, shares, strict=True)):
        m[cut] = share + mask[cut]
        yield Round(f"{label}/{number}", {peer: {"m": m[cut]}})
    for number, cut in enumerate(cuts):
        spec = ArraySpec(m.dtype, m[cut].shape)
        inbox = yield Round(f"{label}/{number}", awaits={peer: {"m": spec}}, continues=number > 0)
        m[cut] += inbox[peer]["m"]
    return m
