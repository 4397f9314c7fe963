"""A service's audit trail in its database. Entries commit, or vanish, with the change that they tell of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from libs.core.clock import Clock
from libs.core.errors import Bug, FailedPrecondition
from libs.runtime.audit.checkpoint import Checkpoint, Signer
from libs.runtime.audit.entry import GENESIS, Entry, Event, canonical, link, moment_text
from libs.runtime.audit.tables import AuditTables

CHECKPOINT_EVERY = 100
"""Once so many entries are not signed, the transaction that appends the last of them signs them all."""

_ONLY = 1


class AuditTrail:
    """Appends to the trail named `trail`, the identity URI of the service that keeps it.

    Every method works in the caller's transaction. `append` locks the end of the chain until that commits:
    make it the last thing before, and two transactions never wait for each other in a circle.
    """

    def __init__(
        self, *, trail: str, tables: AuditTables, clock: Clock, signer: Signer | None = None
    ) -> None:
        if signer is not None and signer.identity != trail:
            raise Bug(f"the trail {trail} cannot be signed by {signer.identity}")
        self._trail, self._tables, self._clock, self._signer = trail, tables, clock, signer

    @property
    def name(self) -> str:
        """The identity URI that is hashed into every entry."""
        return self._trail

    def append(self, connection: sa.Connection, event: Event) -> Entry:
        """Chain `event` to the trail, within the caller's transaction. The entry.

        One select, one insert, one update; after a hundred entries a signed checkpoint follows.
        Raises FailedPrecondition when the database holds the trail of another service.
        """
        return self.append_all(connection, [event])[-1]

    def append_all(self, connection: sa.Connection, events: Sequence[Event]) -> list[Entry]:
        """The same for several events at once (at least one), at the price of little more than one."""
        head, at = self._locked_head(connection), self._clock.now()
        sequence, last, entries = head.sequence, head.hash, list[Entry]()
        for event in events:
            entries.append(link(sequence, last, event, at, trail=self._trail))
            sequence, last = entries[-1].sequence, entries[-1].hash
        connection.execute(self._tables.entries.insert(), [_row(entry) for entry in entries])
        self._move_head(connection, sequence=sequence, hash=last)
        if self._signer is not None and sequence - head.signed_sequence >= CHECKPOINT_EVERY:
            self.checkpoint(connection)
        return entries

    def checkpoint(self, connection: sa.Connection) -> Checkpoint | None:
        """Sign where the chain ends now; None when nothing is new since the last checkpoint.

        Bug for a trail without a signer.
        """
        if self._signer is None:
            raise Bug("a trail without a signer cannot make checkpoints")
        head = self._locked_head(connection)
        if head.sequence == head.signed_sequence:
            return None
        signed = Checkpoint.sign(
            trail=self._trail,
            number=head.checkpoints + 1,
            sequence=head.sequence,
            head_hash=head.hash,
            at=self._clock.now(),
            signer=self._signer,
        )
        line = canonical(signed.to_json()).decode("ascii")
        row = {"number": signed.number, "sequence": signed.sequence, "line": line}
        connection.execute(self._tables.checkpoints.insert().values(row))
        self._move_head(connection, signed_sequence=signed.sequence, checkpoints=signed.number)
        return signed

    def end(self, connection: sa.Connection) -> int:
        """The sequence number of the last entry; 0 without any."""
        return int(connection.scalar(sa.select(sa.func.max(self._tables.entries.c.sequence))) or 0)

    def export(self, connection: sa.Connection, *, after: int = 0, limit: int) -> list[dict[str, Any]]:
        """Up to `limit` entries after that sequence number, each followed by its checkpoint if it has one.

        JSON-line dicts in the order of the chain; empty when there are no more. Read `sequence` of the last
        one to ask for the next page.
        """
        entries, checkpoints = self._tables.entries, self._tables.checkpoints
        query = sa.select(entries).where(entries.c.sequence > after).order_by(entries.c.sequence)
        rows = connection.execute(query.limit(limit)).all()
        if not rows:
            return []
        signed = sa.select(checkpoints.c.sequence, checkpoints.c.line).where(
            checkpoints.c.sequence.between(rows[0].sequence, rows[-1].sequence)
        )
        lines = {row.sequence: json.loads(row.line) for row in connection.execute(signed)}
        return list(self._with_checkpoints(rows, lines))

    def _with_checkpoints(self, rows: Any, lines: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            yield _line(row, trail=self._trail)
            if row.sequence in lines:
                yield lines[row.sequence]

    def _locked_head(self, connection: sa.Connection) -> sa.Row[Any]:
        table = self._tables.head
        query = sa.select(table).where(table.c.only == _ONLY).with_for_update()
        head = connection.execute(query).one_or_none()
        if head is None:
            connection.execute(_begun(connection, table, self._trail))
            head = connection.execute(query).one()
        if head.trail != self._trail:
            raise FailedPrecondition(
                f"This database holds the audit trail of {head.trail}, not of {self._trail}. "
                "Give every service a database of its own."
            )
        return head

    def _move_head(self, connection: sa.Connection, **values: int | str) -> None:
        connection.execute(self._tables.head.update().where(self._tables.head.c.only == _ONLY).values(values))


def _begun(connection: sa.Connection, table: sa.Table, trail: str) -> sa.Insert:
    """The insert of the first head. Of two that begin the same trail at once, one does nothing."""
    row = {"only": _ONLY, "trail": trail, "sequence": 0, "hash": GENESIS}
    row |= {"signed_sequence": 0, "checkpoints": 0}
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).values(row).on_conflict_do_nothing()
    return sqlite.insert(table).values(row).on_conflict_do_nothing()


def _row(entry: Entry) -> dict[str, Any]:
    event = entry.event
    return {
        "sequence": entry.sequence,
        "at": moment_text(entry.at),
        "action": event.action,
        "actor": event.actor,
        "object": event.object,
        "outcome": event.outcome.value,
        "approval": event.approval,
        "request_id": event.request_id,
        "details": canonical(dict(event.details)).decode("ascii"),
        "previous_hash": entry.previous_hash,
        "hash": entry.hash,
    }


def _line(row: Any, *, trail: str) -> dict[str, Any]:
    """What is stored, as it is: an altered row is exported altered, and verification finds it."""
    try:
        details = json.loads(row.details)
    except ValueError:
        details = row.details
    return {"kind": "entry", "trail": trail, **row._mapping, "details": details}
