"""FedProx (Li et al., MLSys 2020): local training is held near the weights that it started from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.fl.strategies.strategy import Averaging, Correction, Slot, Start


@dataclass(frozen=True)
class FedProx(Averaging):
    """FedAvg with mu / 2 |w - w_t|^2 added to each hospital's loss."""

    mu: float

    def correction(self, start: Start, slots: Sequence[Slot]) -> Correction:
        """Its gradient, mu (w - w_t), added to the loss's."""
        del start
        anchors = [slot.tensor.detach().clone() for slot in slots]

        def pull() -> None:
            for slot, anchor in zip(slots, anchors, strict=True):
                if slot.tensor.grad is not None:
                    slot.tensor.grad.add_(slot.tensor.detach() - anchor, alpha=self.mu)

        return pull
