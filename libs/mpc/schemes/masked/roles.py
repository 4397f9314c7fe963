"""Who does what in one computation of the masked scheme.

[[x]]: m = x + l1 + l2 is known to both evaluators; l1 to the dealer and the first evaluator, l2 to
the dealer and the second. So (m, -l1, -l2) are additive shares of x and every party misses one. The
dealer's part does not depend on x, which is why it can work before the input exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES, PartyId
from libs.mpc.prg import MaskSource


@dataclass(frozen=True)
class Roles:
    """The three parties of one computation, each in one role."""

    dealer: PartyId
    first: PartyId
    second: PartyId

    def __post_init__(self) -> None:
        if {self.dealer, self.first, self.second} != set(PARTIES):
            raise InvalidInput("A computation needs the three parties 0, 1 and 2, each in exactly one role.")

    @classmethod
    def rotated(cls, turn: int) -> Roles:
        """The roles of the `turn`-th computation: each party deals every third time."""
        return cls(PARTIES[turn % 3], PARTIES[(turn + 1) % 3], PARTIES[(turn + 2) % 3])


@dataclass(frozen=True)
class Evaluator:
    """One evaluator's view: `lead` adds public constants to its share."""

    lead: bool
    peer: PartyId
    dealer: PartyId
    masks: MaskSource
    """Shared with the dealer."""

    @classmethod
    def of(cls, me: PartyId, roles: Roles, masks: MaskSource) -> Evaluator:
        """The view of party `me`, which must be an evaluator."""
        if me == roles.dealer:
            raise InvalidInput("The dealer of a computation cannot evaluate it: it would learn the input.")
        lead = me == roles.first
        return cls(lead, roles.second if lead else roles.first, roles.dealer, masks)


@dataclass(frozen=True)
class Dealer:
    """The dealer's view: it can draw what each evaluator draws."""

    first: MaskSource
    second: MaskSource
