"""FedAdam (Reddi et al., ICLR 2021): Adam over the rounds' mean updates."""

from __future__ import annotations

from dataclasses import dataclass

from libs.fl.strategies.server_optimizer import AdaptiveServer
from libs.fl.strategies.strategy import Floats


@dataclass(frozen=True)
class FedAdam(AdaptiveServer):
    """v forgets at the rate 1 - b2."""

    def second_moment(self, before: Floats, square: Floats) -> Floats:
        return self.beta_2 * before + (1 - self.beta_2) * square
