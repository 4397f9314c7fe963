"""FedBN (Li et al., ICLR 2021): each hospital keeps BatchNorm, and with it its scanner's look.

In the plan's last round hospitals contribute BatchNorm too: the version after it is a whole model, with the
mean of their BatchNorms, and can be released. Versions before hold BatchNorm as it was dealt.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from libs.fl.strategies.strategy import Averaging, Finished, Floats, Start, own_part

_NAME = "batch_norm"


class FedBN(Averaging):
    """FedAvg of everything but BatchNorm."""

    @property
    def keeps_state(self) -> bool:
        return True

    def start_weights(self, start: Start) -> Floats:
        """The version's weights, with this hospital's own BatchNorm from its last round that counted."""
        if start.own is None:
            return start.opened.weights
        mask = start.layout.batch_norm
        weights = start.opened.weights.copy()
        weights[mask] = own_part(start.own, _NAME, length=int(mask.sum()))
        return weights

    def finish(self, start: Start, update: npt.NDArray[np.float32], *, steps: int) -> Finished:
        del steps
        mask = start.layout.batch_norm
        after = self.start_weights(start)[mask] + update[mask]
        shared = update.astype(np.float64)
        shared[mask] = after - start.opened.weights[mask] if start.last_round else 0.0
        return Finished(shared, {_NAME: after})
