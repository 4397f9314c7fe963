"""A large product in slices, so that one slice travels while the next is computed.

Only a product whose one reader is the opening right behind it is cut: along the batch if there is one, else
along the output channels. Both evaluators cut alike, because the cut follows from the plan and the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked.linear import Bilinear, linear
from libs.secure_nn import steps as s
from libs.secure_nn.plan import Plan

SLICE_BYTES = 1 << 20
"""A message of the peer stream: smaller slices would only add frames."""

MAX_SLICES = 8

Cuts = tuple[tuple[slice, ...], ...]


def cuts_of(plan: Plan, position: int, *, batch: int) -> Cuts:
    """Where the product of the step at `position` is cut; one piece means not at all."""
    step, whole = plan.steps[position], ((slice(None),),)
    if not isinstance(step, s.WeightedStep) or position + 1 == len(plan.steps):
        return whole
    follower = plan.steps[position + 1]
    readers = [other for other in plan.steps if step.output in other.inputs]
    if not isinstance(follower, s.Open) or readers != [follower]:
        return whole
    output = plan.values[step.output]
    size_bytes = batch * output.elements * plan.ring.element_bytes
    along_batch = batch > 1
    length = batch if along_batch else output.shape[0]
    count = min(MAX_SLICES, size_bytes // SLICE_BYTES, length)
    if count < 2 or not (along_batch or _channels_are_free(step)):
        return whole
    bounds = [length * i // count for i in range(count + 1)]
    pieces = (slice(start, stop) for start, stop in itertools.pairwise(bounds))
    return tuple((piece,) if along_batch else (slice(None), piece) for piece in pieces)


def _channels_are_free(step: s.WeightedStep) -> bool:
    return not isinstance(step, s.Conv2d) or step.groups == 1


@dataclass(frozen=True, repr=False)
class SlicedProduct:
    """x*w + bias that is not computed yet: m_x (B, ...), this evaluator's W_j and u_j."""

    m: RingArray
    w_share: RingArray
    u: RingArray
    product: Bilinear
    cuts: Cuts

    def shares(self) -> Iterator[RingArray]:
        """This evaluator's share, slice by slice, each computed when it is asked for."""
        for cut in self.cuts:
            if len(cut) == 1:
                yield linear(self.m[cut], self.w_share, self.u[cut], self.product)
            else:
                yield linear(self.m, self.w_share[cut[1]], self.u[cut], self.product)
