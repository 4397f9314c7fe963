"""Whether the hospital takes part, in the node's database."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, Session, mapped_column

from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.adapters.tables import Base
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.membership import MembershipState
from services.hospital_node.trail_events import membership_changed

_ONLY = 1


class MembershipRow(Base):
    """One row, or none: then the hospital takes part."""

    __tablename__ = "membership"
    only: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16))


class MembershipCallRow(Base):
    """A call that joined or left; its repetition does neither.

    Named by what it asked for and its id: an id that joined once does not keep anybody from leaving.
    """

    __tablename__ = "membership_calls"
    request_id: Mapped[str] = mapped_column(String(128), primary_key=True)


class SqlMembership:
    """Implements `membership.MembershipStore`."""

    def __init__(self, transactions: Transactions, trail: AuditTrail) -> None:
        self._transactions, self._trail = transactions, trail

    async def state(self) -> MembershipState:
        """What is stored."""

        def read(session: Session) -> MembershipState:
            row = session.get(MembershipRow, _ONLY)
            return MembershipState.JOINED if row is None else MembershipState(row.state)

        return await self._transactions.run(read)

    async def change(self, state: MembershipState, *, request_id: str, actor: str) -> bool:
        """Store it, unless this request did before. Whether it did so now."""
        call = f"{state.value}:{request_id}"

        def write(session: Session) -> bool:
            if session.get(MembershipCallRow, call) is not None:
                return False
            session.add(MembershipCallRow(request_id=call))
            session.merge(MembershipRow(only=_ONLY, state=state.value))
            session.flush()
            joined = state is MembershipState.JOINED
            event = membership_changed(joined=joined, actor=actor, request_id=request_id)
            self._trail.append(session.connection(), event)
            return True

        return await self._transactions.run(write)

    async def left(self) -> None:
        """The coordinator knows. Nothing changes if the hospital has joined again meanwhile."""

        def write(session: Session) -> None:
            row = session.get(MembershipRow, _ONLY)
            if row is not None and row.state == MembershipState.LEAVING.value:
                row.state = MembershipState.LEFT.value

        await self._transactions.run(write)
