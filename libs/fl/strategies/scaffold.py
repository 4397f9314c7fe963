"""SCAFFOLD (Karimireddy et al., ICML 2020): each step is corrected by how this hospital differs from all.

A version is [weights | c], c the mean over hospitals of their control variates c_k; a contribution is
[change of weights | change of c_k]. c_k is the hospital's mean gradient in its last round that counted
(option II of the paper), and stays at the hospital.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libs.fl.strategies.strategy import (
    Averaging,
    Correction,
    Finished,
    Floats,
    Layout,
    Opened,
    Slot,
    Start,
    own_part,
)

_NAME = "control"


@dataclass(frozen=True)
class Scaffold(Averaging):
    """`fraction` of the hospitals take part in a round, so c moves by that part of the participants' mean."""

    fraction: float = 1.0

    @property
    def vectors(self) -> int:
        return 2

    @property
    def keeps_state(self) -> bool:
        return True

    def open(self, before: Opened | None, version: Floats, layout: Layout) -> Opened:
        weights, control = version[: layout.parameters], version[layout.parameters :]
        return Opened(0 if before is None else before.round + 1, version, weights, control)

    def correction(self, start: Start, slots: Sequence[Slot]) -> Correction:
        """c - c_k, added to every gradient."""
        import torch  # noqa: PLC0415 - the coordinator and the parties weigh hospitals without it

        difference = (start.opened.shared - _own(start)).astype(np.float32)
        parts = [torch.from_numpy(difference[s.place].copy()).reshape(s.tensor.shape) for s in slots]

        def correct() -> None:
            for slot, part in zip(slots, parts, strict=True):
                if slot.tensor.grad is not None:
                    slot.tensor.grad.add_(part)

        return correct

    def finish(self, start: Start, update: npt.NDArray[np.float32], *, steps: int) -> Finished:
        """c_k+ = c_k - c + (w_t - w_k) / (steps * rate), where there is a gradient at all."""
        control = _own(start)
        moved = -update.astype(np.float64) / (steps * start.learning_rate)
        after = np.where(start.layout.trained, control - start.opened.shared + moved, 0.0)
        change = self.fraction * (after - control)
        return Finished(np.concatenate([update.astype(np.float64), change]), {_NAME: after})


def _own(start: Start) -> Floats:
    length = start.layout.parameters
    return np.zeros(length) if start.own is None else own_part(start.own, _NAME, length=length)
