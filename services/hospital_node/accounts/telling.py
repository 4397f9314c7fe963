"""Entries of accounts in the audit trail."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from libs.rpc.caller import current_request_id
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail


def tell(trail: AuditTrail, session: Session, event: Event) -> None:
    """Append the event with the id of the call that is being handled, in the transaction it tells of."""
    trail.append(session.connection(), replace(event, request_id=current_request_id() or ""))
