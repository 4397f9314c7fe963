"""What FedAdam and FedYogi share (Reddi et al., ICLR 2021, algorithm 2): an optimiser over mean updates.

It runs at every reader, not at the parties, which only add: dividing by a root under shares would cost more
than all the rest of a round. The versions S_t that the parties keep are sums of mean updates; a reader
replays the optimiser over their differences. Nothing else enters, so all readers hold the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from libs.fl.strategies.strategy import Averaging, Floats, Layout, Opened


@dataclass(frozen=True)
class AdaptiveServer(Averaging):
    """m = b1 m + (1 - b1) d, v by the subclass, w = w + rate m / (sqrt(v) + tau), d the round's mean update.

    BatchNorm's statistics have no gradient, and an adaptive step could make a variance negative: they take
    the mean as it is. v starts at tau^2.
    """

    learning_rate: float
    beta_1: float
    beta_2: float
    tau: float

    @property
    def reads_all_versions(self) -> bool:
        return True

    def open(self, before: Opened | None, version: Floats, layout: Layout) -> Opened:
        if before is None:
            moments = (np.zeros_like(version), np.full_like(version, self.tau**2))
            return Opened(0, version, version, np.zeros(0), moments)
        change = version - before.version
        first = self.beta_1 * before.moments[0] + (1 - self.beta_1) * change
        second = self.second_moment(before.moments[1], change * change)
        step = self.learning_rate * first / (np.sqrt(second) + self.tau)
        weights = before.weights + np.where(layout.trained, step, change)
        return Opened(before.round + 1, version, weights, np.zeros(0), (first, second))

    def second_moment(self, before: Floats, square: Floats) -> Floats:
        """v, from the last v and this round's squared mean update."""
        raise NotImplementedError
