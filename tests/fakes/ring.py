"""Ring vectors for tests."""

from __future__ import annotations

import secrets

from libs.mpc.prg import SEED_BYTES, Prg
from libs.mpc.ring import Ring, RingArray


def random_ring(shape: tuple[int, ...], ring: Ring) -> RingArray:
    """Uniform ring elements, fresh each time."""
    return Prg(secrets.token_bytes(SEED_BYTES)).ring(shape, ring)
