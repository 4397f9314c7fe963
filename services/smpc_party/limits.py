"""What predictions may cost a party, so that no plan and no client can use up its memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from libs.core.errors import TooLarge, Unavailable
from libs.mpc.schemes.masked.comparison import Comparison
from libs.rpc.identity import Identity
from libs.secure_nn.plan import Plan

MAX_OPEN = 64
"""Predictions in progress; each may hold its material in memory."""


class _InProgress(Protocol):
    @property
    def client(self) -> Identity: ...

    @property
    def working_bytes(self) -> int: ...


def working_bytes(plan: Plan, *, batch: int) -> int:
    """About what one prediction holds in memory: its material, and its largest value."""
    largest = max(value.elements for value in plan.values)
    dealt = max(plan.cost(batch, comparison=comparison).dealt_bytes for comparison in Comparison)
    return dealt + batch * largest * plan.ring.element_bytes


@dataclass(frozen=True)
class PredictionLimits:
    """`total_bytes` for all predictions in progress together, `per_client` of them for one client."""

    total_bytes: int
    per_client: int

    def check_plan(self, plan: Plan) -> None:
        """Raise `TooLarge` for a model that could not be asked about a single image."""
        self._check_alone(working_bytes(plan, batch=1))

    def check_room(self, client: Identity, needed_bytes: int, others: Iterable[_InProgress]) -> None:
        """Raise `TooLarge` for a prediction that never fits, `Unavailable` for one that does not fit now."""
        self._check_alone(needed_bytes)
        running = list(others)
        if sum(other.client == client for other in running) >= self.per_client:
            raise Unavailable(
                f"{client} has {self.per_client} predictions in progress. Ask again when one has ended."
            )
        taken = sum(other.working_bytes for other in running)
        if len(running) >= MAX_OPEN or taken + needed_bytes > self.total_bytes:
            raise Unavailable("This party is busy with other predictions. Ask again later.")

    def _check_alone(self, needed_bytes: int) -> None:
        if needed_bytes > self.total_bytes:
            raise TooLarge(
                f"This prediction needs {needed_bytes >> 20} MiB at each party, which give "
                f"{self.total_bytes >> 20} MiB. Send fewer images at once, or smaller ones."
            )
