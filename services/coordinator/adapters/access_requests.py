"""Requests for access as rows."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.coordinator import trail_events
from services.coordinator.adapters.gateway_tables import AccessRequestRow
from services.coordinator.adapters.transactions import Transactions, page_of
from services.coordinator.domain import SignedText
from services.coordinator.gateway_ports import AccessRequest, Grant
from services.coordinator.ports import Page
from services.coordinator.states import AccessState


class SqlAccessRequests:
    """The AccessStore port on SQLAlchemy."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add_access_request(self, request: AccessRequest) -> AccessRequest:
        """Store it, or give back the one that has its id already."""
        try:
            with self._transactions.begin() as session:
                session.add(_row_of(request))
                self._transactions.enter(session, trail_events.access_requested(request))
        except IntegrityError:
            return self.access_request(request.request_id) or request
        return request

    def access_request(self, request_id: str) -> AccessRequest | None:
        """The request, or None."""
        with self._transactions.begin() as session:
            row = _row(session, request_id)
            return None if row is None else _request_of(row)

    def mark_delivered(self, request_id: str) -> None:
        """Its hospital's stream has carried it."""
        with self._transactions.begin() as session:
            row = _row(session, request_id)
            if row is not None:
                row.delivered = True

    def save_grant(self, request_id: str, grant: Grant) -> None:
        """What its hospital says now."""
        with self._transactions.begin() as session:
            row = _row(session, request_id)
            if row is not None:
                changed = row.state != grant.state.value
                _write_grant(row, grant)
                if changed:
                    self._transactions.enter(session, trail_events.access_decided(request_id, grant))

    def undecided_access_requests(self, hospital: str) -> list[AccessRequest]:
        """Those that this hospital has to be asked, oldest first."""
        query = select(AccessRequestRow).where(
            AccessRequestRow.hospital == hospital, AccessRequestRow.state == AccessState.PENDING.value
        )
        with self._transactions.begin() as session:
            return [_request_of(row) for row in session.scalars(query.order_by(AccessRequestRow.sequence))]

    def open_requests_of(self, requester: str, requested_by: str) -> int:
        """How many of this person's requests are undecided."""
        query = select(func.count()).where(
            AccessRequestRow.requester == requester,
            AccessRequestRow.requested_by == requested_by,
            AccessRequestRow.state == AccessState.PENDING.value,
        )
        with self._transactions.begin() as session:
            return session.scalar(query) or 0

    def page_of_access_requests(
        self, owner: tuple[str, str] | None, *, after: str, limit: int
    ) -> Page[AccessRequest]:
        """In the order of asking: those of (requester, requested_by), or all."""
        query = select(AccessRequestRow).where(AccessRequestRow.sequence > int(after or 0))
        if owner is not None:
            requester, requested_by = owner
            query = query.where(
                AccessRequestRow.requester == requester, AccessRequestRow.requested_by == requested_by
            )
        with self._transactions.begin() as session:
            rows = list(session.scalars(query.order_by(AccessRequestRow.sequence).limit(limit + 1)))
            return page_of(rows, limit, _request_of, lambda row: str(row.sequence))


def _row(session: Session, request_id: str) -> AccessRequestRow | None:
    return session.scalar(select(AccessRequestRow).where(AccessRequestRow.request_id == request_id))


def _row_of(request: AccessRequest) -> AccessRequestRow:
    row = AccessRequestRow(
        request_id=request.request_id,
        requester=request.requester,
        requested_by=request.requested_by,
        requested_at=request.requested_at,
        hospital=request.hospital,
        dataset_id=request.dataset_id,
        purpose=request.purpose,
        plan_hash=request.plan_hash,
        model_id=request.model_id,
        epsilon=request.epsilon,
        delta=request.delta,
        uses=request.uses,
        training_plan=request.training_plan,
        statement=request.statement.payload,
        statement_signature=request.statement.signature,
        statement_chain=request.statement.certificate_chain,
        delivered=request.delivered,
    )
    _write_grant(row, request.grant)
    return row


def _write_grant(row: AccessRequestRow, grant: Grant) -> None:
    row.state, row.reason, row.expires_at = grant.state.value, grant.reason, grant.expires_at
    row.granted_epsilon, row.granted_delta, row.granted_uses = grant.epsilon, grant.delta, grant.uses


def _request_of(row: AccessRequestRow) -> AccessRequest:
    return AccessRequest(
        request_id=row.request_id,
        requester=row.requester,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        hospital=row.hospital,
        dataset_id=row.dataset_id,
        purpose=row.purpose,
        plan_hash=row.plan_hash,
        model_id=row.model_id,
        epsilon=row.epsilon,
        delta=row.delta,
        uses=row.uses,
        training_plan=row.training_plan,
        statement=SignedText(row.statement, row.statement_signature, row.statement_chain),
        delivered=row.delivered,
        grant=Grant(
            state=AccessState(row.state),
            reason=row.reason,
            epsilon=row.granted_epsilon,
            delta=row.granted_delta,
            uses=row.granted_uses,
            expires_at=row.expires_at,
        ),
    )
