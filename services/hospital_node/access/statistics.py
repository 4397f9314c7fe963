"""Counts per class with noise, paid for in the transaction that keeps the answer: nothing is drawn twice."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from libs.core.errors import FailedPrecondition, PermissionDenied
from libs.dp.budget import Spend
from libs.dp.events import canonical_json
from libs.dp.mechanisms import DiscreteLaplaceMechanism, Randomness
from libs.runtime.audit.entry import Event
from services.hospital_node.access.costs import decimal_text
from services.hospital_node.access.domain import Approval, ApprovalEvent, LedgerKind, NewEntry, Purpose
from services.hospital_node.access.ledger import spend
from services.hospital_node.access.ports import Unit
from services.hospital_node.domain import Dataset


@dataclass(frozen=True)
class Consumer:
    """Who asks: the identity of the certificate, and the subject of the token."""

    identity: str
    subject: str

    @property
    def actor(self) -> str:
        """As ledger and audit trail name a person."""
        return f"{self.identity} ({self.subject})"


@dataclass(frozen=True)
class Statistics:
    """Counts that may be told, what they cost, and the standard deviation of the noise on each."""

    noisy_counts: Mapping[str, int]
    spent: Spend
    noise_deviation: float


def release(
    unit: Unit,
    *,
    dataset_name: str,
    approval_id: str,
    epsilon: Fraction,
    consumer: Consumer,
    rng: Randomness | None = None,
) -> Statistics:
    """The number of images of each class, with discrete Laplace noise.

    One image more or less changes one count by one: all counts together are one release of sensitivity 1.
    Takes one use and `epsilon` of the approval, and `epsilon` of the data set's budget. Raises
    FailedPrecondition when one of them has not enough left, PermissionDenied for somebody else's approval.
    """
    approval = _approval(unit, approval_id, dataset_name, consumer)
    approval.require(ApprovalEvent.USE, now=unit.now)
    dataset = _approved_data(unit, approval)
    mechanism = DiscreteLaplaceMechanism(epsilon)
    cost = Spend(epsilon)  # exact: this mechanism has no delta, and its epsilon is what it was made for
    line = NewEntry(
        LedgerKind.STATISTICS,
        dataset_name,
        consumer.actor,
        cost,
        event=canonical_json(mechanism.event),
        approval_id=approval_id,
    )
    spend(unit, line, approval=approval)
    unit.put_approval(replace(approval, used=approval.used + 1))
    unit.record(
        Event(
            action="statistics.released",
            actor=consumer.actor,
            object=f"dataset/{dataset_name}",
            approval=approval_id,
            details={"epsilon": decimal_text(epsilon), "counts": len(dataset.images_per_class)},
        )
    )
    drawn = rng or secrets.SystemRandom()
    counts = {name: mechanism.release(count, drawn) for name, count in dataset.images_per_class.items()}
    return Statistics(counts, cost, math.sqrt(mechanism.variance))


def _approval(unit: Unit, approval_id: str, dataset_name: str, consumer: Consumer) -> Approval:
    """One that is for statistics of this data set and was given to this person."""
    approval = unit.approval(approval_id)
    request = unit.request(approval.request_id) if approval is not None else None
    own = request is not None and (request.requester, request.requested_by) == (
        consumer.identity,
        consumer.subject,
    )
    if approval is None or not own:
        raise PermissionDenied("You have no such approval. Ask for one: trefoil request create")
    if approval.purpose is not Purpose.STATISTICS or approval.dataset_name != dataset_name:
        raise FailedPrecondition("This approval is not for statistics of this data set.")
    return approval


def _approved_data(unit: Unit, approval: Approval) -> Dataset:
    dataset, request = unit.dataset(approval.dataset_name), unit.request(approval.request_id)
    if dataset is None or request is None or dataset.content_hash != request.content_hash:
        raise FailedPrecondition(
            "The data set was withdrawn, or has changed since its use was approved. Ask for another approval."
        )
    return dataset
