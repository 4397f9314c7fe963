"""What access needs from the outside: the node's memory, one transaction at a time, and listeners."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from libs.dp.budget import Spend
from libs.runtime.audit.entry import Event
from services.hospital_node.access.domain import (
    AccessRequest,
    Approval,
    LedgerEntry,
    NewEntry,
    Rule,
    Study,
    Told,
)
from services.hospital_node.domain import Dataset

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Message)


class Unit(Protocol):
    """The node's memory within one transaction. Nothing else changes it meanwhile, and all of it is kept or
    nothing is: uses, ledger, audit trail and the answer to the call tell one story.
    """

    @property
    def now(self) -> datetime:
        """The moment of the transaction, in UTC."""
        ...

    def dataset(self, name: str) -> Dataset | None: ...

    def request(self, request_id: str) -> AccessRequest | None: ...

    def requests(self, *, pending_only: bool, after: str, limit: int | None) -> list[AccessRequest]:
        """Oldest first, those that came after the request `after`."""
        ...

    def waiting_requests(self, requester: str) -> int:
        """How many of its requests are pending."""
        ...

    def put_request(self, request: AccessRequest) -> None: ...

    def approval(self, approval_id: str) -> Approval | None: ...

    def approval_of(self, request_id: str) -> Approval | None: ...

    def approvals_by(self, *, rule_id: str) -> list[Approval]: ...

    def approvals_for(self, *, requester: str, dataset_name: str) -> list[Approval]:
        """Oldest first."""
        ...

    def approvals_of_model(self, model_id: str) -> list[Approval]:
        """Oldest first."""
        ...

    def put_approval(self, approval: Approval) -> None: ...

    def study(self, study_id: str) -> Study | None: ...

    def studies(self) -> list[Study]:
        """All, oldest first."""
        ...

    def studies_under(self, approval_id: str) -> list[Study]: ...

    def study_stated(self, statement_id: str) -> Study | None: ...

    def put_study(self, study: Study) -> None: ...

    def rule(self, rule_id: str) -> Rule | None: ...

    def rules(self) -> list[Rule]:
        """Oldest first."""
        ...

    def put_rule(self, rule: Rule) -> None: ...

    def entries(
        self, *, dataset_name: str = "", consumer: str = "", after: int = 0, limit: int | None = None
    ) -> list[LedgerEntry]:
        """Oldest first; empty texts choose all."""
        ...

    def ledger_datasets(self) -> set[str]:
        """The data sets that the ledger speaks of."""
        ...

    def spends(self, *, dataset_name: str = "", approval_id: str = "") -> list[Spend]:
        """What was taken from a data set, or under an approval."""
        ...

    def budget(self, dataset_name: str) -> Spend | None:
        """What may be taken from a data set altogether; None when nobody has said."""
        ...

    def enter(self, line: NewEntry) -> LedgerEntry:
        """Append to the ledger."""
        ...

    def attempts_sent(self, study_id: str, *, number: int, besides: int) -> bool:
        """Whether shares of another attempt at that training round may have left."""
        ...

    def attempt_entered(self, study_id: str, *, number: int, attempt: int) -> bool:
        """Whether the ledger has that attempt."""
        ...

    def record(self, event: Event) -> None:
        """For the audit trail, when the transaction is kept."""
        ...

    def model_use_changed(self, model_id: str) -> None:
        """The rules of that model have to be told to the three parties again, as its next revision."""
        ...

    def model_use_told(self, model_id: str, *, revision: int, party: int) -> None:
        """That party has that revision."""
        ...

    def model_use_ahead(self, model_id: str, revision: int) -> None:
        """A party has a later revision than this node: the next one comes after it."""
        ...

    def model_uses_untold(self) -> list[tuple[str, int, frozenset[int]]]:
        """(model, revision, parties that have it), where not all three have the latest."""
        ...


class AccessStore(Protocol):
    """Runs work on the node's memory, one transaction each."""

    async def run(self, work: Callable[[Unit], T]) -> T:
        """The result of `work`; nothing of it is kept when it raises."""
        ...

    async def answer(
        self, *, actor: str, message: Any, answer_type: type[Answer], work: Callable[[Unit], Answer]
    ) -> Answer:
        """The answer of `work`, kept with what it did; or the kept one, if this actor sent `message` before.

        `message` is the request as it came; its `call_id` (or `request_id`) makes it the same one.
        InvalidInput without an id, FailedPrecondition when the id belongs to another request.
        """
        ...


class DecisionListener(Protocol):
    """Tells the coordinator, if the link is up. All decisions are told again at every connect."""

    def plan_decided(self, *, study_id: str, plan_hash: str, approved: bool, reason: str) -> None: ...

    def access_decided(self, decision: Told) -> None: ...
