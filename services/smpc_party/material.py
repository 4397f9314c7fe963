"""The words of the pool: a shelf, a piece on it, and what may become of one."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass

from libs.core.ids import PARTIES, PartyId
from libs.mpc.schemes.masked.comparison import Comparison
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc.peer_frames import LEAST_BYTES
from libs.secure_nn.plan import Plan

SESSION_SLACK_BYTES = 4096
"""What a session's peers may send beyond the programs' arrays: the small messages around them."""


class PieceState(enum.StrEnum):
    """One piece at this party. Whatever ends it, it never becomes ready again."""

    READY = "ready"
    TAKEN = "taken"
    BURNED = "burned"


@dataclass(frozen=True)
class Shelf:
    """Where pieces lie that serve the same predictions."""

    model_id: str
    batch: int
    roles: Roles

    @classmethod
    def of_dealer(cls, dealer: PartyId, *, model_id: str, batch: int) -> Shelf:
        """The shelf that this party fills: the evaluators follow it in order, as in every rotation."""
        return cls(model_id, batch, Roles.rotated(PARTIES.index(dealer)))

    def terms(self, plan_hash: str) -> bytes:
        """What the three parties must mean alike when they make a piece for it."""
        roles = [self.roles.dealer, self.roles.first, self.roles.second]
        terms = {"deal": self.model_id, "plan": plan_hash, "batch": self.batch, "roles": roles}
        return json.dumps(terms, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Piece:
    """One prediction's worth of material at this party. The dealer keeps nothing but this record."""

    piece_id: str
    shelf: Shelf
    masking: bytes
    """Which masking of the model's weights it was made for."""
    made_at_s: float
    """Seconds since 1970."""
    seconds: float
    """How long it took to make."""
    received_bytes: int
    """What the dealer sent for it."""
    stored_bytes: int


def session_budget(
    me: PartyId, roles: Roles, plan: Plan, *, batch: int, online: bool
) -> Mapping[PartyId, int]:
    """How much each peer may send in a session that deals, evaluates, or both: at most what is declared."""
    costs = [plan.cost(batch, comparison=comparison) for comparison in Comparison]
    between = max(cost.online_bytes_each_way for cost in costs) if online else 0
    dealt = max(cost.dealt_bytes for cost in costs)
    if me == roles.dealer:
        budget = {roles.first: 0, roles.second: 0}
    elif me == roles.first:
        budget = {roles.dealer: 0, roles.second: between}
    else:
        budget = {roles.dealer: dealt, roles.first: between}
    slack = SESSION_SLACK_BYTES + LEAST_BYTES * max(cost.rounds for cost in costs)
    return {peer: size + slack for peer, size in budget.items()}
