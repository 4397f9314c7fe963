"""Something to be measured: a plan, its parameters, an input, and what float torch makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.mpc.ring import RingArray
from libs.secure_nn.cost import PlanCost
from libs.secure_nn.plan import Plan


@dataclass(frozen=True)
class Workload:
    """`inputs` (batch, C, H, W); `expected` (batch, *output shape), from float torch on the same inputs.

    `plaintext` does the same work once in float torch, with nobody hiding anything.
    """

    name: str
    plan: Plan
    parameters: RingArray
    inputs: npt.NDArray[np.float32]
    expected: npt.NDArray[np.float64]
    plaintext: Callable[[], Any]

    @property
    def batch(self) -> int:
        """Images, or rows, of one question."""
        return len(self.inputs)

    @property
    def declared(self) -> PlanCost:
        """What the plan says that one question costs."""
        return self.plan.cost(self.batch)
