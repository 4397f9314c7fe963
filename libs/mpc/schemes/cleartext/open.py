"""Opening without security: the value itself."""

from __future__ import annotations

from libs.mpc.ring import RingArray


def open_masked(x: RingArray) -> RingArray:
    """x."""
    return x
