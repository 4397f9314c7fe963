"""What is in the pool, in SQLite: one row a piece, and never a second use of one.

A piece is added once, and leaves the state "ready" once, by a row update that is on the disk before anybody
acts on it. Its row stays as a tombstone for a while, so that no piece can be added under its name again.
Methods block on the disk; call them from a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from libs.core.errors import MaskReuse, StorageFull
from libs.core.ids import PartyId
from libs.mpc.schemes.masked.roles import Roles
from libs.runtime.sql import open_engine
from services.smpc_party.material import Piece, PieceState, Shelf

TOMBSTONE_S = 7 * 86_400.0
"""How long the name of a used piece is remembered: far longer than any computation lives."""

_metadata = sa.MetaData()
_pieces = sa.Table(
    "pieces",
    _metadata,
    sa.Column("piece_id", sa.String, primary_key=True),
    sa.Column("model_id", sa.String, nullable=False),
    sa.Column("batch", sa.Integer, nullable=False),
    sa.Column("dealer", sa.Integer, nullable=False),
    sa.Column("first", sa.Integer, nullable=False),
    sa.Column("second", sa.Integer, nullable=False),
    sa.Column("masking", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("made_at_s", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("received_bytes", sa.Integer, nullable=False),
    sa.Column("stored_bytes", sa.Integer, nullable=False),
    sa.Index("shelves", "model_id", "batch", "dealer", "state"),
)


class PoolIndex:
    """The party's list of pieces."""

    def __init__(self, file: Path) -> None:
        self._engine = open_engine(f"sqlite:///{file}")
        _metadata.create_all(self._engine)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def add(self, piece: Piece) -> None:
        """Put a piece on its shelf. Raises `MaskReuse` for a name that was there before, used or not."""
        roles = piece.shelf.roles
        row = {
            "piece_id": piece.piece_id,
            "model_id": piece.shelf.model_id,
            "batch": piece.shelf.batch,
            "dealer": int(roles.dealer),
            "first": int(roles.first),
            "second": int(roles.second),
            "masking": piece.masking.hex(),
            "state": PieceState.READY.value,
            "made_at_s": piece.made_at_s,
            "seconds": piece.seconds,
            "received_bytes": piece.received_bytes,
            "stored_bytes": piece.stored_bytes,
        }
        try:
            with self._transaction() as tx:
                tx.execute(_pieces.insert().values(row))
                old = _pieces.c.made_at_s < piece.made_at_s - TOMBSTONE_S
                tx.execute(_pieces.delete().where(old & (_pieces.c.state != PieceState.READY.value)))
        except IntegrityError:
            raise MaskReuse("A piece of material was about to be kept a second time.") from None

    def take(self, piece_id: str, shelf: Shelf) -> Piece | None:
        """This piece, which is gone from the pool from now on; None if it is not ready on this shelf."""
        return self._take(_on(shelf) & (_pieces.c.piece_id == piece_id), PieceState.TAKEN)

    def take_oldest(self, shelf: Shelf) -> Piece | None:
        """The oldest ready piece of the shelf, which is gone from now on; None if the shelf is empty."""
        return self._take(_on(shelf), PieceState.TAKEN)

    def burn(self, piece_id: str) -> Piece | None:
        """Take a piece out for good, for nobody; None if it was not ready."""
        return self._take(_pieces.c.piece_id == piece_id, PieceState.BURNED)

    def ready(self) -> list[Piece]:
        """Every piece that can still be taken, oldest first."""
        query = sa.select(_pieces).where(_pieces.c.state == PieceState.READY.value)
        with self._transaction() as tx:
            return [_piece(row) for row in tx.execute(query.order_by(_pieces.c.made_at_s)).all()]

    def count(self, shelf: Shelf) -> int:
        """Ready pieces of a shelf."""
        ready = _on(shelf) & (_pieces.c.state == PieceState.READY.value)
        with self._transaction() as tx:
            return int(tx.scalar(sa.select(sa.func.count()).select_from(_pieces).where(ready)) or 0)

    def _take(self, which: sa.ColumnElement[bool], after: PieceState) -> Piece | None:
        ready = which & (_pieces.c.state == PieceState.READY.value)
        with self._transaction() as tx:
            query = sa.select(_pieces).where(ready).order_by(_pieces.c.made_at_s).limit(1)
            row = tx.execute(query).one_or_none()
            if row is None:
                return None
            mine = _pieces.c.piece_id == row.piece_id
            tx.execute(_pieces.update().where(mine).values(state=after.value))
        return _piece(row)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as tx:
                yield tx
        except OperationalError as error:
            if "full" in str(error.orig):
                raise StorageFull("This party's disk is full. Its operator must make room.") from error
            raise


def _on(shelf: Shelf) -> sa.ColumnElement[bool]:
    roles = shelf.roles
    return sa.and_(
        _pieces.c.model_id == shelf.model_id,
        _pieces.c.batch == shelf.batch,
        _pieces.c.dealer == int(roles.dealer),
        _pieces.c.first == int(roles.first),
        _pieces.c.second == int(roles.second),
    )


def _piece(row: sa.Row[tuple[object, ...]]) -> Piece:
    roles = Roles(PartyId(row.dealer), PartyId(row.first), PartyId(row.second))
    return Piece(
        piece_id=row.piece_id,
        shelf=Shelf(row.model_id, row.batch, roles),
        masking=bytes.fromhex(row.masking),
        made_at_s=row.made_at_s,
        seconds=row.seconds,
        received_bytes=row.received_bytes,
        stored_bytes=row.stored_bytes,
    )
