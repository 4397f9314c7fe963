"""Requests, approvals, studies and rules, and their state machines as tables.

A transition that is not in a table cannot happen: `next_state` raises. Costs are exact: `libs/dp/budget.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from libs.core.errors import FailedPrecondition
from libs.dp.budget import Spend


class Purpose(enum.Enum):
    """What data may be used for."""

    TRAINING = "training"
    PREDICTION = "prediction"
    STATISTICS = "statistics"


class Origin(enum.Enum):
    """How a request came."""

    COORDINATOR = "coordinator"
    STUDY = "study"
    STAFF = "staff"


# ---------------------------------------------------------------- requests


class RequestState(enum.Enum):
    """Whether the owner has decided."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"


class RequestEvent(enum.Enum):
    """What can happen to a request."""

    APPROVE = "approve"
    DENY = "deny"


REQUEST_TRANSITIONS: Mapping[tuple[RequestState, RequestEvent], RequestState] = MappingProxyType(
    {
        (RequestState.PENDING, RequestEvent.APPROVE): RequestState.APPROVED,
        (RequestState.PENDING, RequestEvent.DENY): RequestState.DENIED,
        (RequestState.DENIED, RequestEvent.DENY): RequestState.DENIED,
        # Approved is taken back by revoking the approval; a denial is final, the scientist asks anew.
    }
)


@dataclass(frozen=True)
class AccessRequest:
    """A wish to use one data set.

    `requester` is the identity that signed it, or that of the staff who asked; `requested_by` is what the
    coordinator says about the person, to be shown and never believed. `content_hash` is the data set's as of
    the request, when `dataset_version` was published: other content needs another request. A request of a
    study names its `hospitals`, with whose updates this hospital's are added up, and `readers`, who may fetch
    the sums; both are approved with it.
    """

    request_id: str
    origin: Origin
    purpose: Purpose
    dataset_name: str
    content_hash: str
    requester: str
    requested_by: str
    reason: str
    asked: Spend
    uses_asked: int
    received_at: datetime
    plan_hash: str = ""
    training_plan: bytes = b""
    model_id: str = ""
    planned: Spend | None = None
    statement_hash: str = ""
    dataset_version: int = 0
    study_id: str = ""
    title: str = ""
    hospitals: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    state: RequestState = RequestState.PENDING
    decision_reason: str = ""
    decided_by: str = ""
    decided_at: datetime | None = None

    def next_state(self, event: RequestEvent) -> RequestState:
        """The state after `event`. Raises FailedPrecondition when the table has no such transition."""
        try:
            return REQUEST_TRANSITIONS[self.state, event]
        except KeyError:
            hint = " Revoke its approval instead." if self.state is RequestState.APPROVED else ""
            raise FailedPrecondition(
                f"Request {self.request_id} is {self.state.value} already, so it is too late to "
                f"{event.value} it.{hint}"
            ) from None


# ---------------------------------------------------------------- approvals


class ApprovalState(enum.Enum):
    """Where an approval stands at one moment."""

    LIVE = "live"
    USED_UP = "used up"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ApprovalEvent(enum.Enum):
    """What an approval can be asked for."""

    USE = "use"
    GO_ON = "go on"
    REVOKE = "revoke"


APPROVAL_ALLOWS: frozenset[tuple[ApprovalState, ApprovalEvent]] = frozenset(
    {
        (ApprovalState.LIVE, ApprovalEvent.USE),
        (ApprovalState.LIVE, ApprovalEvent.GO_ON),
        # What took the last use goes on; nothing new begins.
        (ApprovalState.USED_UP, ApprovalEvent.GO_ON),
        (ApprovalState.LIVE, ApprovalEvent.REVOKE),
        (ApprovalState.USED_UP, ApprovalEvent.REVOKE),
        (ApprovalState.EXPIRED, ApprovalEvent.REVOKE),
        (ApprovalState.REVOKED, ApprovalEvent.REVOKE),
    }
)

_WHAT_NOW = MappingProxyType(
    {
        ApprovalState.USED_UP: "has no uses left. Ask the data owner for another approval.",
        ApprovalState.EXPIRED: "has expired. Ask the data owner for another approval.",
        ApprovalState.REVOKED: "was revoked. Ask the data owner why.",
    }
)


@dataclass(frozen=True)
class Approval:
    """What the owner allows: so much privacy in so many uses, until `expires_at` if there is one.

    `granted` is for all uses together. `rule_id` names the rule that gave it, if one did.
    """

    approval_id: str
    request_id: str
    purpose: Purpose
    dataset_name: str
    requester: str
    granted: Spend
    uses: int
    used: int = 0
    expires_at: datetime | None = None
    rule_id: str = ""
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> ApprovalState:
        """At that moment."""
        if self.revoked_at is not None:
            return ApprovalState.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return ApprovalState.EXPIRED
        return ApprovalState.LIVE if self.used < self.uses else ApprovalState.USED_UP

    def require(self, event: ApprovalEvent, *, now: datetime) -> None:
        """Raises FailedPrecondition, in words, unless the table allows that."""
        state = self.state(now)
        if (state, event) not in APPROVAL_ALLOWS:
            raise FailedPrecondition(f"The approval {self.approval_id} {_WHAT_NOW[state]}")


class Standing(enum.Enum):
    """What became of a request, as its requester is told."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"
    EXPIRED = "expired"
    USED_UP = "used up"


_STANDING: Mapping[ApprovalState, Standing] = MappingProxyType(
    {
        ApprovalState.LIVE: Standing.APPROVED,
        ApprovalState.USED_UP: Standing.USED_UP,
        ApprovalState.EXPIRED: Standing.EXPIRED,
        ApprovalState.REVOKED: Standing.REVOKED,
    }
)


@dataclass(frozen=True)
class Told:
    """What the coordinator hears about a request, to pass on."""

    request_id: str
    standing: Standing
    reason: str = ""
    granted: Spend | None = None
    uses: int = 0
    expires_at: datetime | None = None

    @classmethod
    def about(cls, request: AccessRequest, approval: Approval | None, *, now: datetime) -> Told:
        """How the request stands at that moment."""
        if approval is None:
            standing = Standing.DENIED if request.state is RequestState.DENIED else Standing.PENDING
            return cls(request.request_id, standing, request.decision_reason)
        return cls(
            request.request_id,
            _STANDING[approval.state(now)],
            request.decision_reason,
            approval.granted,
            approval.uses,
            approval.expires_at,
        )


# ---------------------------------------------------------------- studies


class StudyState(enum.Enum):
    """Where a study stands at this hospital."""

    WAITING = "waiting"
    ADMITTED = "admitted"
    DENIED = "denied"
    ENDED = "ended"


class StudyEvent(enum.Enum):
    """What can happen to a study."""

    ADMIT = "admit"
    DENY = "deny"
    END = "end"


STUDY_TRANSITIONS: Mapping[tuple[StudyState, StudyEvent], StudyState] = MappingProxyType(
    {
        (StudyState.WAITING, StudyEvent.ADMIT): StudyState.ADMITTED,
        (StudyState.WAITING, StudyEvent.DENY): StudyState.DENIED,
        (StudyState.WAITING, StudyEvent.END): StudyState.ENDED,
        # Consent can be withdrawn at any time; a denial is final, the scientist creates another study.
        (StudyState.ADMITTED, StudyEvent.DENY): StudyState.DENIED,
        (StudyState.ADMITTED, StudyEvent.END): StudyState.ENDED,
        (StudyState.DENIED, StudyEvent.DENY): StudyState.DENIED,
        (StudyState.DENIED, StudyEvent.END): StudyState.ENDED,
        (StudyState.ENDED, StudyEvent.DENY): StudyState.ENDED,
        (StudyState.ENDED, StudyEvent.END): StudyState.ENDED,
    }
)


@dataclass(frozen=True)
class Study:
    """A training plan that wants this hospital's data, and under which approval it was admitted.

    `statement_id` is the signer's own name for what was signed: one signature makes one study.
    """

    study_id: str
    statement_id: str
    title: str
    requester: str
    requested_by: str
    dataset_name: str
    content_hash: str
    plan_hash: str
    training_plan: bytes
    hospitals: tuple[str, ...]
    readers: tuple[str, ...]
    received_at: datetime
    state: StudyState = StudyState.WAITING
    approval_id: str = ""
    reason: str = ""

    def next_state(self, event: StudyEvent) -> StudyState:
        """The state after `event`. Raises FailedPrecondition when the table has no such transition."""
        try:
            return STUDY_TRANSITIONS[self.state, event]
        except KeyError:
            raise FailedPrecondition(
                f"Study {self.study_id} is {self.state.value} at this hospital, so it is too late to "
                f"{event.value} it."
            ) from None


# ---------------------------------------------------------------- rules


@dataclass(frozen=True)
class Rule:
    """What is approved before it is asked for. Empty `plan_hashes` or `requesters` admit any.

    `at_most` and `uses` bound all approvals together that one requester gets by the rule.
    """

    rule_id: str
    purposes: frozenset[Purpose]
    dataset_names: frozenset[str]
    plan_hashes: frozenset[str]
    requesters: frozenset[str]
    at_most: Spend
    uses: int
    until: datetime | None
    created_by: str
    created_at: datetime
    revoked_at: datetime | None = None


# ---------------------------------------------------------------- the ledger


class LedgerKind(enum.Enum):
    """What an entry of the ledger tells of."""

    ADMITTED = "admitted"
    ATTEMPT = "attempt"
    STATISTICS = "statistics"
    PREDICTION = "prediction"
    BUDGET_SET = "budget set"


@dataclass(frozen=True)
class NewEntry:
    """A line for the ledger. `cost` is what it takes; of a `BUDGET_SET` what may be taken from now on.

    `event` is the JSON of `libs/dp/events.py`, b"" for a budget; `count` how many predictions it tells of.
    """

    kind: LedgerKind
    dataset_name: str
    consumer: str
    cost: Spend
    event: bytes = b""
    approval_id: str = ""
    study_id: str = ""
    round: int = 0
    attempt: int = 0
    count: int = 0


@dataclass(frozen=True)
class LedgerEntry:
    """A line in the ledger; `sequence` counts from 1 without gaps."""

    sequence: int
    at: datetime
    line: NewEntry
