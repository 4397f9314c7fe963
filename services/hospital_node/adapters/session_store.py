"""Sessions and their refresh tokens in the database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from services.hospital_node.adapters.account_tables import RefreshTokenRow, SessionRow
from services.hospital_node.adapters.tables import utc

_ID = re.compile(r"session-[0-9a-f]{1,50}")


@dataclass(frozen=True)
class OpenSession:
    """A session that was not ended; it may be too old. `client` is the identity in its certificate."""

    session_id: str
    account: str
    certificate: str
    client: str
    began_at: datetime
    last_used_at: datetime
    idle_until: datetime
    expires_at: datetime

    def live(self, now: datetime) -> bool:
        """Whether its tokens are worth something at this moment."""
        return now < min(self.idle_until, self.expires_at)


class SessionStore:
    """Sessions as one transaction sees them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, opened: OpenSession) -> None:
        """A new one. Those that are too old go."""
        now = opened.began_at
        old = select(SessionRow.session_id).where(
            (SessionRow.expires_at <= now) | (SessionRow.idle_until <= now)
        )
        for session_id in self._session.scalars(old).all():
            self.end(session_id)
        self._session.add(SessionRow(**vars(opened)))
        self._session.flush()

    def get(self, session_id: str) -> OpenSession | None:
        """The session; None if there is none or it was ended."""
        row = self._session.get(SessionRow, session_id) if _ID.fullmatch(session_id) else None
        return None if row is None else _opened(row)

    def of(self, account: str) -> list[OpenSession]:
        """The account's sessions, the oldest first."""
        query = select(SessionRow).where(SessionRow.account == account)
        return [_opened(row) for row in self._session.scalars(query.order_by(SessionRow.began_at))]

    def used(self, session_id: str, *, now: datetime, idle_until: datetime) -> None:
        """It goes on until then at least."""
        row = self._session.get_one(SessionRow, session_id)
        row.last_used_at, row.idle_until = now, idle_until

    def end(self, session_id: str) -> None:
        """Forget it with all its tokens."""
        self._session.execute(delete(RefreshTokenRow).where(RefreshTokenRow.session_id == session_id))
        self._session.execute(delete(SessionRow).where(SessionRow.session_id == session_id))

    def end_all(self, account: str, *, but: str = "") -> list[str]:
        """End every session of the account except `but`; which they were."""
        ended = [s.session_id for s in self.of(account) if s.session_id != but]
        for session_id in ended:
            self.end(session_id)
        return ended

    def add_refresh_token(self, token_hash: str, session_id: str) -> None:
        """The session's next refresh token."""
        self._session.add(RefreshTokenRow(token_hash=token_hash, session_id=session_id, used=False))
        self._session.flush()

    def refresh_token(self, token_hash: str) -> tuple[OpenSession, bool] | None:
        """(its session, whether it was used before); None for a token that no session has."""
        row = self._session.get(RefreshTokenRow, token_hash)
        if row is None:
            return None
        return _opened(self._session.get_one(SessionRow, row.session_id)), row.used

    def use_refresh_token(self, token_hash: str) -> None:
        """From now on it is worth nothing, and shows a theft when it comes again."""
        self._session.get_one(RefreshTokenRow, token_hash).used = True


def _opened(row: SessionRow) -> OpenSession:
    return OpenSession(
        session_id=row.session_id,
        account=row.account,
        certificate=row.certificate,
        client=row.client,
        began_at=utc(row.began_at),
        last_used_at=utc(row.last_used_at),
        idle_until=utc(row.idle_until),
        expires_at=utc(row.expires_at),
    )
