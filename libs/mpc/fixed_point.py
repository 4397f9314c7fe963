"""Real numbers as ring integers: round(x * scale), two's complement."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring, RingArray

PIECE_ELEMENTS = 1 << 15
"""Worked on at once: eight bytes of each stay in the processor's nearer caches from step to step."""


@dataclass(frozen=True)
class FixedPoint:
    """An encoding. `scale` ring units stand for 1.0; it must leave room for some integer part."""

    ring: Ring
    scale: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.scale < 2 ** (self.ring.bits - 2):
            raise InvalidInput(f"A scale of {self.scale} leaves no room in a {self.ring.bits}-bit ring.")

    def encode(self, values: npt.ArrayLike) -> RingArray:
        """Nearest ring integers, same shape; computed in float64, ties to even.

        Raises `InvalidInput` on NaN, infinity and overflow.
        """
        whole = np.asarray(values)
        flat, encoded = whole.reshape(-1), np.empty(whole.size, dtype=self.ring.signed_dtype)
        scaled, scale = np.empty(min(PIECE_ELEMENTS, whole.size)), float(self.scale)
        for start in range(0, whole.size, PIECE_ELEMENTS):
            piece = flat[start : start + PIECE_ELEMENTS]
            part = scaled[: len(piece)]
            part[:] = piece
            part *= scale
            np.rint(part, out=part)
            self._check(part)
            encoded[start : start + len(piece)] = part
        return encoded.view(self.ring.dtype).reshape(whole.shape)

    def _check(self, scaled: npt.NDArray[np.float64]) -> None:
        """Raise `InvalidInput` unless all of these (at least one) are integers of the ring."""
        least, most, limit = scaled.min(), scaled.max(), 2.0 ** (self.ring.bits - 1)
        if least >= -limit and most < limit:  # neither holds for NaN, which min and max pass on
            return
        if not np.isfinite(scaled).all():
            raise InvalidInput("The values hold NaN or infinity, which cannot be encoded.")
        raise InvalidInput(
            f"Values beyond +-{limit / float(self.scale):g} do not fit this encoding; scale them down."
        )

    def decode(self, elements: RingArray) -> npt.NDArray[Any]:
        """Floats (float64), same shape."""
        if elements.dtype != self.ring.dtype:
            raise InvalidInput(f"Expected {self.ring.dtype} ring elements, not {elements.dtype}.")
        return elements.view(self.ring.signed_dtype).astype(np.float64) / float(self.scale)
