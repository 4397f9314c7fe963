"""The state machines, as tables: what is not in a table cannot happen."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from libs.core.errors import Bug


class IllegalTransition(Bug):
    """A state was about to be left by a way that does not exist."""


class StudyState(enum.Enum):
    """Where a study is."""

    CREATED = "created"
    AWAITING_APPROVAL = "awaiting_approval"
    TRAINING = "training"
    CALIBRATING = "calibrating"
    RELEASING = "releasing"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StudyEvent(enum.Enum):
    """What happens to a study."""

    STARTED = "started"
    APPROVED = "approved"
    TRAINED = "trained"
    CALIBRATED = "calibrated"
    RELEASED = "released"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({StudyState.READY, StudyState.FAILED, StudyState.CANCELLED})

STUDY_TRANSITIONS: Mapping[tuple[StudyState, StudyEvent], StudyState] = MappingProxyType(
    {
        (StudyState.CREATED, StudyEvent.STARTED): StudyState.AWAITING_APPROVAL,
        (StudyState.AWAITING_APPROVAL, StudyEvent.APPROVED): StudyState.TRAINING,
        (StudyState.TRAINING, StudyEvent.TRAINED): StudyState.CALIBRATING,
        (StudyState.CALIBRATING, StudyEvent.CALIBRATED): StudyState.RELEASING,
        (StudyState.RELEASING, StudyEvent.RELEASED): StudyState.READY,
        **{(state, StudyEvent.FAILED): StudyState.FAILED for state in StudyState if state not in ENDED},
        **{(state, StudyEvent.CANCELLED): StudyState.CANCELLED for state in StudyState if state not in ENDED},
    }
)


class RoundKind(enum.Enum):
    """What the hospitals contribute."""

    TRAIN = "train"
    RELEASE = "release"


class RoundState(enum.Enum):
    """Where a round is. OPENING and CLOSING are stored before the parties are asked: a restart asks again."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    COMPLETED = "completed"
    ABANDONED = "abandoned"
    STOPPED = "stopped"
    """The hospitals ended training instead of contributing."""


class RoundEvent(enum.Enum):
    """What happens to a round."""

    OPENED = "opened"
    OVER = "over"
    AGGREGATED = "aggregated"
    FELL_SHORT = "fell_short"
    RETRIED = "retried"
    STOPPED = "stopped"


ROUND_TRANSITIONS: Mapping[tuple[RoundState, RoundEvent], RoundState] = MappingProxyType(
    {
        (RoundState.OPENING, RoundEvent.OPENED): RoundState.OPEN,
        (RoundState.OPEN, RoundEvent.OVER): RoundState.CLOSING,
        (RoundState.OPEN, RoundEvent.STOPPED): RoundState.STOPPED,
        (RoundState.CLOSING, RoundEvent.AGGREGATED): RoundState.COMPLETED,
        (RoundState.CLOSING, RoundEvent.FELL_SHORT): RoundState.ABANDONED,
        (RoundState.ABANDONED, RoundEvent.RETRIED): RoundState.OPENING,
    }
)


class Decision(enum.Enum):
    """A data owner's answer to a plan."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"


DECISION_TRANSITIONS: Mapping[tuple[Decision, bool], Decision] = MappingProxyType(
    {
        (Decision.PENDING, True): Decision.APPROVED,
        (Decision.PENDING, False): Decision.DENIED,
        (Decision.APPROVED, True): Decision.APPROVED,
        # Consent can be withdrawn at any time; a denial is final.
        (Decision.APPROVED, False): Decision.DENIED,
        (Decision.DENIED, False): Decision.DENIED,
    }
)


class TaskStatus(enum.Enum):
    """How far a hospital is with what it was asked to do."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    """It contributed, and the parties' check left that out."""
    STOP = "stop"
    """It judged the rounds so far by the plan's early stopping, and wants no more of them."""


class AssociationState(enum.Enum):
    """Whether a hospital's key belongs to the federation."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"
    LEFT = "left"


class AssociationEvent(enum.Enum):
    """What happens to an association: the hospital asks and leaves, the operator does the rest."""

    ASKED = "asked"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"
    LEFT = "left"


ASSOCIATION_TRANSITIONS: Mapping[tuple[AssociationState, AssociationEvent], AssociationState] = (
    MappingProxyType(
        {
            (AssociationState.LEFT, AssociationEvent.ASKED): AssociationState.PENDING,
            (AssociationState.PENDING, AssociationEvent.APPROVED): AssociationState.APPROVED,
            (AssociationState.DENIED, AssociationEvent.APPROVED): AssociationState.APPROVED,
            (AssociationState.REVOKED, AssociationEvent.APPROVED): AssociationState.APPROVED,
            (AssociationState.APPROVED, AssociationEvent.APPROVED): AssociationState.APPROVED,
            (AssociationState.PENDING, AssociationEvent.DENIED): AssociationState.DENIED,
            (AssociationState.DENIED, AssociationEvent.DENIED): AssociationState.DENIED,
            (AssociationState.APPROVED, AssociationEvent.REVOKED): AssociationState.REVOKED,
            (AssociationState.LEFT, AssociationEvent.REVOKED): AssociationState.REVOKED,
            (AssociationState.REVOKED, AssociationEvent.REVOKED): AssociationState.REVOKED,
            (AssociationState.APPROVED, AssociationEvent.LEFT): AssociationState.LEFT,
        }
    )
)


class AccessState(enum.Enum):
    """What a hospital said about a request for access, as far as the coordinator was told."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"
    EXPIRED = "expired"
    USED_UP = "used_up"


_GRANT_ENDED = (AccessState.REVOKED, AccessState.EXPIRED, AccessState.USED_UP)

ACCESS_TRANSITIONS: frozenset[tuple[AccessState, AccessState]] = frozenset(
    {
        *((AccessState.PENDING, state) for state in AccessState if state is not AccessState.PENDING),
        *((AccessState.APPROVED, state) for state in _GRANT_ENDED),
        # A grant may be told again: after a reconnect, or narrowed.
        (AccessState.APPROVED, AccessState.APPROVED),
    }
)
"""From what was known to what a hospital says now. The end of a request or of a grant is final."""
