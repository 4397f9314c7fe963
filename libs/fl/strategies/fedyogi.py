"""FedYogi (Reddi et al., ICLR 2021): Yogi over the rounds' mean updates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from libs.fl.strategies.server_optimizer import AdaptiveServer
from libs.fl.strategies.strategy import Floats


@dataclass(frozen=True)
class FedYogi(AdaptiveServer):
    """v moves towards the square by a part of the square, so it cannot shrink suddenly."""

    def second_moment(self, before: Floats, square: Floats) -> Floats:
        return before - (1 - self.beta_2) * square * np.sign(before - square)
