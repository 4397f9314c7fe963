"""Real numbers as ring integers: round(x * scale), two's complement."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring, RingArray


@dataclass(frozen=True)
class FixedPoint:
    """An encoding. `scale` ring units stand for 1.0; it must leave room for some integer part."""

    ring: Ring
    scale: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.scale < 2 ** (self.ring.bits - 2):
            raise InvalidInput(f"A scale of {self.scale} leaves no room in a {self.ring.bits}-bit ring.")

    def encode(self, values: npt.ArrayLike) -> RingArray:
        """Nearest ring integers, same shape. Raises `InvalidInput` on NaN, infinity and overflow."""
        scaled = np.rint(np.asarray(values, dtype=np.float64) * float(self.scale))
        if not np.isfinite(scaled).all():
            raise InvalidInput("The values hold NaN or infinity, which cannot be encoded.")
        limit = 2.0 ** (self.ring.bits - 1)
        if scaled.size and (scaled.max() >= limit or scaled.min() < -limit):
            raise InvalidInput(
                f"Values beyond +-{limit / float(self.scale):g} do not fit this encoding; scale them down."
            )
        return scaled.astype(np.int64).astype(self.ring.signed_dtype).view(self.ring.dtype)

    def decode(self, elements: RingArray) -> npt.NDArray[Any]:
        """Floats (float64), same shape."""
        if elements.dtype != self.ring.dtype:
            raise InvalidInput(f"Expected {self.ring.dtype} ring elements, not {elements.dtype}.")
        return elements.view(self.ring.signed_dtype).astype(np.float64) / float(self.scale)
