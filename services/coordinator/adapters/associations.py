"""Associations as rows, and calls that were answered."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from services.coordinator import trail_events
from services.coordinator.adapters.gateway_tables import (
    AnsweredCallRow,
    AssociationRow,
    DatasetRow,
    DatasetTagRow,
)
from services.coordinator.adapters.transactions import Transactions, page_of
from services.coordinator.gateway_ports import AnsweredCall, Association
from services.coordinator.ports import Page
from services.coordinator.states import AssociationState


class SqlAssociations:
    """The AssociationStore port on SQLAlchemy."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def association(self, hospital: str, key_sha256: str) -> Association | None:
        """The hospital's association with this key, or None."""
        with self._transactions.begin() as session:
            row = _row(session, hospital, key_sha256)
            return None if row is None else _association_of(row)

    def associations_of(self, hospital: str) -> list[Association]:
        """All keys of one hospital, oldest first."""
        query = select(AssociationRow).where(AssociationRow.hospital == hospital)
        with self._transactions.begin() as session:
            return [_association_of(row) for row in session.scalars(query.order_by(AssociationRow.sequence))]

    def pending_associations(self) -> int:
        """How many wait for the operator."""
        pending = AssociationRow.state == AssociationState.PENDING.value
        with self._transactions.begin() as session:
            return session.scalar(select(func.count()).select_from(AssociationRow).where(pending)) or 0

    def save_associations(
        self, associations: Sequence[Association], *, call: AnsweredCall | None = None
    ) -> None:
        """Store them and the call that led to them, and take hospitals that have none approved any more out
        of the catalogue: all or nothing.
        """
        with self._transactions.begin() as session:
            changed = [association for association in associations if _write(session, association)]
            if call is not None:
                session.add(
                    AnsweredCallRow(
                        caller=call.caller, request_id=call.request_id, content_sha256=call.content_sha256
                    )
                )
            session.flush()
            for hospital in {association.hospital for association in associations}:
                _forget_unless_approved(session, hospital)
            for association in changed:
                self._transactions.enter(session, trail_events.association_changed(association))

    def answered(self, caller: str, request_id: str) -> AnsweredCall | None:
        """The call with this id that was answered before, or None."""
        with self._transactions.begin() as session:
            row = session.get(AnsweredCallRow, (caller, request_id))
            return None if row is None else AnsweredCall(row.caller, row.request_id, row.content_sha256)

    def page_of_associations(
        self, state: AssociationState | None, *, after: str, limit: int
    ) -> Page[Association]:
        """In the order of asking."""
        query = select(AssociationRow).where(AssociationRow.sequence > int(after or 0))
        if state is not None:
            query = query.where(AssociationRow.state == state.value)
        with self._transactions.begin() as session:
            rows = list(session.scalars(query.order_by(AssociationRow.sequence).limit(limit + 1)))
            return page_of(rows, limit, _association_of, lambda row: str(row.sequence))


def _row(session: Session, hospital: str, key_sha256: str) -> AssociationRow | None:
    return session.scalar(
        select(AssociationRow).where(
            AssociationRow.hospital == hospital, AssociationRow.key_sha256 == key_sha256
        )
    )


def _write(session: Session, association: Association) -> bool:
    """Whether that changed its state."""
    row = _row(session, association.hospital, association.key_sha256)
    if row is None:
        row = AssociationRow(hospital=association.hospital, key_sha256=association.key_sha256)
        session.add(row)
    changed = row.state != association.state.value
    row.name, row.state = association.name, association.state.value
    row.requested_at, row.decided_at = association.requested_at, association.decided_at
    row.decided_by, row.reason = association.decided_by, association.reason
    return changed


def _forget_unless_approved(session: Session, hospital: str) -> None:
    approved = select(AssociationRow.sequence).where(
        AssociationRow.hospital == hospital, AssociationRow.state == AssociationState.APPROVED.value
    )
    if session.scalar(approved.limit(1)) is None:
        its_own = select(DatasetRow.dataset_id).where(DatasetRow.hospital == hospital)
        session.execute(delete(DatasetTagRow).where(DatasetTagRow.dataset_id.in_(its_own)))
        session.execute(delete(DatasetRow).where(DatasetRow.hospital == hospital))


def _association_of(row: AssociationRow) -> Association:
    return Association(
        hospital=row.hospital,
        key_sha256=row.key_sha256,
        name=row.name,
        state=AssociationState(row.state),
        requested_at=row.requested_at,
        decided_at=row.decided_at,
        decided_by=row.decided_by,
        reason=row.reason,
    )
