"""Dealt values: the first evaluator draws its shares, the second is sent the corrections.

A dealt value v becomes v - d for the second evaluator, where d is what the first one draws from the
key it shares with the dealer (XOR instead of minus for bits). d is uniform, so the corrections tell
nothing; the first evaluator sees none of them. Corrections travel as one byte string in the order of
the plan; both sides know its length from the plan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import Bug
from libs.mpc.prg import MaskSource, Prg
from libs.mpc.ring import Ring, RingArray


class DealerTape:
    """Draws masks, and turns dealt values into corrections."""

    def __init__(self, first: MaskSource, second: MaskSource) -> None:
        self._first, self._second = first, second
        self._corrections: list[npt.NDArray[Any]] = []
        self.size_bytes = 0

    def masks(self, label: str, shape: tuple[int, ...], ring: Ring) -> tuple[RingArray, RingArray]:
        """(l1, l2) of a masked value."""
        return self._first.stream(label).ring(shape, ring), self._second.stream(label).ring(shape, ring)

    def bit_masks(self, label: str, n: int, dtype: npt.DTypeLike = "<u2") -> npt.NDArray[Any]:
        """XOR of both evaluators' mask bits, as many a value as `dtype` holds."""
        drawn = self._first.stream(label).array((n,), dtype)
        drawn ^= self._second.stream(label).array((n,), dtype)
        return drawn

    def first_draws(self, label: str) -> Prg:
        """The stream of the first evaluator's dealt shares."""
        return self._first.stream(label)

    def correct(self, correction: npt.NDArray[Any]) -> None:
        """Append what the second evaluator needs."""
        self._corrections.append(correction)
        self.size_bytes += correction.nbytes

    def take_all(self) -> npt.NDArray[np.uint8]:
        """The corrections so far as bytes; the tape is empty afterwards."""
        parts = [np.ascontiguousarray(c).reshape(-1).view(np.uint8) for c in self._corrections]
        self._corrections.clear()
        self.size_bytes = 0
        return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


class EvaluatorTape:
    """Draws this evaluator's masks, and reads its dealt shares."""

    def __init__(self, masks: MaskSource, *, lead: bool) -> None:
        self._masks = masks
        self._lead = lead
        self._stream: Prg | None = None
        self._corrections: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._read = 0

    def masks(self, label: str, shape: tuple[int, ...], ring: Ring) -> RingArray:
        """l_j of a masked value."""
        return self._masks.stream(label).ring(shape, ring)

    def bit_masks(self, label: str, n: int, dtype: npt.DTypeLike = "<u2") -> npt.NDArray[Any]:
        """This evaluator's mask bits, as many a value as `dtype` holds."""
        return self._masks.stream(label).array((n,), dtype)

    def supply(self, corrections: npt.NDArray[np.uint8]) -> None:
        """Hand in the next corrections (second evaluator only)."""
        if self._read != len(self._corrections):
            raise Bug("Corrections arrived before the earlier ones were used.")
        self._corrections, self._read = corrections, 0

    def open_dealt(self, label: str) -> None:
        """Begin reading the dealt shares of one step."""
        self._stream = self._masks.stream(label) if self._lead else None

    def dealt(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The next dealt shares of the step."""
        if self._stream is not None:
            return self._stream.array(shape, dtype)
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        chunk = self._corrections[self._read : self._read + size]
        if len(chunk) != size:
            raise Bug("The dealer's corrections are shorter than the plan says.")
        self._read += size
        # A copy: aligned, and writable, which is the one form that the kernels are compiled for.
        return chunk.copy().view(dtype).reshape(shape)
