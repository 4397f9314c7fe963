"""Which hospitals train in a round when the plan asks for a fraction of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection


def sampled(
    hospitals: Collection[str],
    *,
    fraction: float,
    quorum: int,
    seed: int,
    round_number: int,
    after: Collection[str] = (),
) -> frozenset[str]:
    """ceil(fraction * all) of them, but no fewer than the quorum: drawn by hashes of seed, round and name.

    The same for every attempt at a round, so that a coordinator that was killed holds the same round again.
    Those in `after` come behind all others: they could not contribute to the attempt before.
    """
    count = min(len(hospitals), max(quorum, math.ceil(fraction * len(hospitals) - 1e-9)))

    def place(hospital: str) -> tuple[bool, str]:
        text = json.dumps(["trefoil-client-sampling", seed, round_number, hospital])
        return hospital in after, hashlib.sha256(text.encode()).hexdigest()

    return frozenset(sorted(hospitals, key=place)[:count])
