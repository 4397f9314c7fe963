"""Who may ask which model, by the hospitals' own word, and how often it was asked; in the index's file.

Every method is one transaction that is on the disk when it returns. Methods block; call them from a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import OperationalError

from libs.core.errors import StorageFull
from libs.rpc.identity import Identity
from libs.runtime.audit.trail import AuditTrail
from services.smpc_party import events
from services.smpc_party.model_use import Counter, HospitalRules, rules_from_data, rules_to_data

_metadata = sa.MetaData()
_rules = sa.Table(
    "model_rules",
    _metadata,
    sa.Column("model_id", sa.String, primary_key=True),
    sa.Column("hospital", sa.String, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("rules", sa.JSON, nullable=False),
)
_counts = sa.Table(
    "model_counts",
    _metadata,
    sa.Column("model_id", sa.String, primary_key=True),
    sa.Column("hospital", sa.String, primary_key=True),
    sa.Column("asker", sa.String, primary_key=True),
    sa.Column("approval_id", sa.String, primary_key=True),
    sa.Column("images", sa.Integer, nullable=False),
)


class UseIndex:
    """The party's record of consent and use."""

    def __init__(self, engine: sa.Engine, trail: AuditTrail) -> None:
        """`engine` is the index's, which has the audit trail too: a change and its entry are one commit."""
        self._engine, self._trail = engine, trail
        _metadata.create_all(engine)

    def load(self, model_id: str) -> tuple[Mapping[Identity, HospitalRules], Mapping[Counter, int]]:
        """All rules and counts of one model."""
        with self._transaction() as tx:
            rules = tx.execute(sa.select(_rules).where(_rules.c.model_id == model_id)).all()
            counts = tx.execute(sa.select(_counts).where(_counts.c.model_id == model_id)).all()
        return (
            {Identity.parse(row.hospital): rules_from_data(row.revision, row.rules) for row in rules},
            {Counter(row.hospital, row.asker, row.approval_id): row.images for row in counts},
        )

    def set_rules(
        self, model_id: str, hospital: Identity, rules: HospitalRules, gone: Iterable[Counter]
    ) -> None:
        """Put these rules in place of the hospital's, and forget the counters that went with them."""
        row = {"model_id": model_id, "hospital": hospital.uri}
        values = {"revision": rules.revision, "rules": list(rules_to_data(rules))}
        with self._transaction() as tx:
            statement = insert(_rules).values(**row, **values)
            tx.execute(statement.on_conflict_do_update(index_elements=list(row), set_=values))
            for counter in gone:
                tx.execute(_counts.delete().where(_is(model_id, counter)))
            self._trail.append(tx, events.model_use_set(model_id, rules))

    def count(self, model_id: str, counts: Mapping[Counter, int]) -> None:
        """Add to the counts."""
        with self._transaction() as tx:
            for counter, images in counts.items():
                key = {"model_id": model_id, "hospital": counter.hospital, "asker": counter.asker}
                key |= {"approval_id": counter.approval_id}
                statement = insert(_counts).values(**key, images=images)
                more = {"images": _counts.c.images + statement.excluded.images}
                tx.execute(statement.on_conflict_do_update(index_elements=list(key), set_=more))

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as tx:
                yield tx
        except OperationalError as error:
            if "full" in str(error.orig):
                raise StorageFull(
                    "This party's disk is full; nothing was kept of the request. Its operator must make "
                    "room; then send it again."
                ) from error
            raise


def _is(model_id: str, counter: Counter) -> sa.ColumnElement[bool]:
    mine = (_counts.c.model_id == model_id) & (_counts.c.hospital == counter.hospital)
    return mine & (_counts.c.asker == counter.asker) & (_counts.c.approval_id == counter.approval_id)
