"""The check of contributions without security, in Python's integers."""

from __future__ import annotations

from collections.abc import Sequence

from libs.mpc.norm_bound import RANGE_RESOLUTION, NormBound
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.cleartext.square_sum import square_sum
from libs.mpc.sketch import SKETCH_LENGTH


def check_norms(
    values: RingArray, bounds: Sequence[NormBound], *, metric_limit: int, resolution: bool
) -> tuple[bool, ...]:
    """Which rows of `values` (h, SKETCH_LENGTH + metrics) keep to their bounds.

    What the masked check accepts is between the two answers: all that is accepted without `resolution`, and
    nothing that is refused with it.
    """
    slack = RANGE_RESOLUTION if resolution else 0
    verdicts = []
    for row, bound in zip(values, bounds, strict=True):
        signed = [int(v) for v in row.view(Ring.RING_32.signed_dtype)]
        buckets, metrics = signed[:SKETCH_LENGTH], signed[SKETCH_LENGTH:]
        within = all(abs(bucket) <= bound.bucket + slack for bucket in buckets)
        within &= all(-slack <= metric < metric_limit + slack for metric in metrics)
        largest = bound.accepted_square if resolution else bound.square
        verdicts.append(within and int(square_sum(row[:SKETCH_LENGTH])) <= largest)
    return tuple(verdicts)
