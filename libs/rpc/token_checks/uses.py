"""Tokens that are good for one call: which of them were used, remembered on disk until they expire."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, String, Table, delete, exc, insert

from libs.core.clock import Clock
from libs.core.errors import Unauthenticated, Unavailable
from libs.rpc.token_checks.claims import ASK, CLOCK_SKEW_S, TokenClaims
from libs.runtime.logging import get_logger
from libs.runtime.sql import open_engine

log = get_logger(__name__)

_METADATA = MetaData()
_USES = Table(
    "token_uses",
    _METADATA,
    Column("issuer", String, primary_key=True),
    Column("token_id", String, primary_key=True),
    Column("expires_at_s", Integer, nullable=False, index=True),
)


class TokenUses:
    """Each pair of issuer and token id once, whoever is faster, also after a restart.

    A SQLite file; the primary key decides the race, between processes too. A use that cannot be written down
    is refused: the file is made when the service starts, and while it cannot be written nobody gets in.
    """

    def __init__(self, file: Path, *, clock: Clock) -> None:
        self._clock = clock
        self._engine = open_engine(f"sqlite:///{file}")
        try:
            _METADATA.create_all(self._engine)
        except exc.SQLAlchemyError as error:
            self._engine.dispose()
            raise Unavailable(
                f"The record of used tokens {file} cannot be opened. Check its folder, owner and disk."
            ) from error

    async def spend(self, claims: TokenClaims) -> None:
        """Unauthenticated if the token was used before, Unavailable if that cannot be told or written.

        A caller that is cancelled meanwhile may have used its token.
        """
        await asyncio.to_thread(self._spend, claims)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def _spend(self, claims: TokenClaims) -> None:
        use = {
            "issuer": claims.issuer,
            "token_id": claims.token_id,
            "expires_at_s": int(claims.expires_at.timestamp()),
        }
        # what is older is refused as expired, so it need not be remembered
        over = int(self._clock.now().timestamp()) - CLOCK_SKEW_S
        try:
            with self._engine.begin() as connection:
                connection.execute(delete(_USES).where(_USES.c.expires_at_s <= over))
                connection.execute(insert(_USES).values(use))
        except exc.IntegrityError as error:
            raise Unauthenticated(
                f"The token was used before and is good for one call only. {ASK}"
            ) from error
        except exc.SQLAlchemyError as error:  # locked, full, read-only, gone, damaged
            log.error("token_use_not_recorded", failure=type(error).__name__)
            raise Unavailable(
                "The record of used tokens cannot be written just now. Try again in a minute."
            ) from error
