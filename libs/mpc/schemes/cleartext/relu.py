"""ReLU with rescaling, without security."""

from __future__ import annotations

import numpy as np

from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.cleartext.rescale import rescale


def relu(x: RingArray, *, multiplier: int, shift: int, ring: Ring) -> RingArray:
    """floor(max(x, 0) * multiplier / 2^shift)."""
    positive = np.where(x.view(ring.signed_dtype) > 0, x, ring.dtype.type(0))
    return rescale(positive, multiplier=multiplier, shift=shift, ring=ring)
