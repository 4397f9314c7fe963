"""This party's part of the noise on a round's sum."""

from __future__ import annotations

from libs.fl.sum_noise import noise_part
from libs.mpc.ring import RingArray
from services.smpc_party.domain import RoundSpec


def with_noise(update: RingArray, spec: RoundSpec) -> RingArray:
    """This party's share of the sum, with noise that nobody else knows. Shape (update_length,).

    Before the sum is rescaled, stored or compared with anything. An attempt that is begun again draws again;
    of what the first one made nobody ever gets a share.
    """
    if not spec.noise_std:
        return update
    return update + noise_part(len(update), std=spec.noise_std, ring=spec.ring)
