"""What this party holds, in SQLite: models, rounds, contributions, and the file of each share.

Every method is one transaction. A share exists when a row names its file, so storing a version together
with the state of its round is one commit. Methods block on the disk; call them from a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from libs.core.errors import AlreadyExists, FailedPrecondition, NotFound, StorageFull
from libs.mpc.ring import Ring
from libs.rpc.identity import Identity
from libs.runtime.audit.tables import audit_tables
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.sql import open_engine
from services.smpc_party import events
from services.smpc_party.domain import (
    ROUND_TABLE,
    Form,
    ModelSpec,
    RoundEvent,
    RoundKey,
    RoundSpec,
    RoundState,
    StoredShare,
    check_same_upload,
    move,
)
from services.smpc_party.ports import Contribution, ModelRecord, Prepared, RoundRecord

_metadata = sa.MetaData()

AUDIT = audit_tables(_metadata)
"""The party's audit trail: what changes the index, and the entry about it, are one commit."""

_models = sa.Table(
    "models",
    _metadata,
    sa.Column("model_id", sa.String, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    # both empty until the share is here
    sa.Column("upload_id", sa.String),
    sa.Column("share", sa.JSON),
)
_rounds = sa.Table(
    "rounds",
    _metadata,
    sa.Column("study_id", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    # the result of the latest attempt; once the round is closed, of the one that counts
    sa.Column("prepared", sa.JSON),
)
_contributions = sa.Table(
    "contributions",
    _metadata,
    sa.Column("study_id", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("hospital", sa.String, primary_key=True),
    sa.Column("upload_id", sa.String, nullable=False),
    sa.Column("share", sa.JSON, nullable=False),
)


class Index:
    """The party's SQLite index, and its audit trail in the same file."""

    def __init__(self, file: Path, trail: AuditTrail) -> None:
        self._engine, self._trail = open_engine(f"sqlite:///{file}"), trail
        _metadata.create_all(self._engine)

    @property
    def engine(self) -> sa.Engine:
        """For what else is written into the audit trail."""
        return self._engine

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def share_names(self) -> set[str]:
        """Every file that some row names."""
        with self._transaction() as tx:
            rows = [*tx.scalars(sa.select(_models.c.share)), *tx.scalars(sa.select(_contributions.c.share))]
            for prepared in tx.scalars(sa.select(_rounds.c.prepared)):
                rows += [prepared["result"], prepared["metrics"]] if prepared else []
        return {row["name"] for row in rows if row}

    # ---------------------------------------------------------------- models

    def add_model(self, spec: ModelSpec) -> None:
        """Register a model. The same again changes nothing; another under its name is `AlreadyExists`."""
        with self._transaction() as tx:
            known = tx.scalar(sa.select(_models.c.spec).where(_models.c.model_id == spec.model_id))
            if known is None:
                tx.execute(_models.insert().values(model_id=spec.model_id, spec=spec.to_json()))
                self._trail.append(tx, events.model_registered(spec))
            elif known != spec.to_json():
                raise AlreadyExists(
                    f"Model {spec.model_id} was registered with other properties. Use a new name."
                )

    def model(self, model_id: str) -> ModelRecord:
        """What is known of a model. Raises `NotFound`."""
        with self._transaction() as tx:
            row = tx.execute(sa.select(_models).where(_models.c.model_id == model_id)).one_or_none()
        if row is None:
            raise NotFound(f"This party knows no model {model_id}. Check the name.")
        return ModelRecord(ModelSpec.from_json(row.spec), row.upload_id, _load_share(row.share))

    def evaluable_models(self) -> list[str]:
        """The models that have a share here and a plan to evaluate; the newest last."""
        with self._transaction() as tx:
            query = sa.select(_models.c.model_id, _models.c.spec).where(_models.c.share.is_not(None))
            rows = tx.execute(query.order_by(sa.text("rowid"))).all()
        return [row.model_id for row in rows if ModelSpec.from_json(row.spec).plan]

    def put_model_share(self, model_id: str, upload_id: str, share: StoredShare) -> bool:
        """Whether the share is now this model's; False when the same upload had been stored before."""
        with self._transaction() as tx:
            query = sa.select(_models.c.upload_id).where(_models.c.model_id == model_id)
            stored = tx.scalar(query)
            if stored is not None:
                check_same_upload(stored, upload_id, what=f"Model {model_id}")
                return False
            values = {"upload_id": upload_id, "share": _dump_share(share)}
            tx.execute(_models.update().where(_models.c.model_id == model_id).values(values))
            self._trail.append(tx, events.share_stored(f"model {model_id}", upload_id, share))
        return True

    # ---------------------------------------------------------------- rounds

    def open_round(self, spec: RoundSpec) -> None:
        """Open a round. The same again changes nothing; another under its number is `AlreadyExists`."""
        with self._transaction() as tx:
            known = tx.scalar(sa.select(_rounds.c.spec).where(_is(_rounds, spec.key)))
            if known == spec.to_json():
                return
            if known is not None:
                raise AlreadyExists(f"The {spec.key} was opened with other properties. Abandon it first.")
            taken = tx.scalar(sa.select(_models.c.model_id).where(_models.c.model_id == spec.result_model_id))
            if taken is not None:
                raise AlreadyExists(f"Model {taken} exists already. Give the round's result a new name.")
            key = {"study_id": spec.key.study_id, "number": spec.key.number}
            tx.execute(_rounds.insert().values(**key, spec=spec.to_json(), state=RoundState.OPEN.value))
            self._trail.append(tx, events.round_opened(spec))

    def round(self, key: RoundKey) -> RoundRecord:
        """What is known of a round. Raises `NotFound`."""
        with self._transaction() as tx:
            return _round(tx, key)

    def move_round(
        self, key: RoundKey, event: RoundEvent, *, attempt: int, refused: Sequence[Identity] = ()
    ) -> RoundRecord:
        """The round after `event`. Whom a check refused is told in the trail when the round falls short.

        Raises `FailedPrecondition` for a step that it cannot take, and for another attempt than the open one.
        """
        with self._transaction() as tx:
            _round(tx, key).spec.check_attempt(attempt)
            _move(tx, key, event)
            if event is RoundEvent.FALL_SHORT:
                self._trail.append(tx, events.round_fell_short(key, attempt, refused))
            return _round(tx, key)

    def put_contribution(
        self, spec: RoundSpec, hospital: Identity, upload_id: str, share: StoredShare
    ) -> bool:
        """Whether the contribution is now stored; False when the same upload had been stored before.

        `spec` is the round that it was checked against. Raises `FailedPrecondition` when that was closed in
        the meantime, or another one was opened in its place.
        """
        key = spec.key
        with self._transaction() as tx:
            current = _round(tx, key).spec
            current.check_attempt(spec.attempt)
            if current != spec:
                raise FailedPrecondition(f"The {key} was opened anew while the share arrived. Send it again.")
            mine = _is(_contributions, key) & (_contributions.c.hospital == hospital.uri)
            stored = tx.scalar(sa.select(_contributions.c.upload_id).where(mine))
            if stored is not None:
                check_same_upload(stored, upload_id, what=f"A contribution of {hospital} to {key}")
                return False
            _move(tx, key, RoundEvent.CONTRIBUTE)
            row = {"study_id": key.study_id, "number": key.number, "hospital": hospital.uri}
            row |= {"upload_id": upload_id, "share": _dump_share(share)}
            tx.execute(_contributions.insert().values(row))
            what = f"contribution of {hospital} to {key}"
            self._trail.append(tx, events.share_stored(what, upload_id, share))
        return True

    def contributions(self, key: RoundKey) -> list[Contribution]:
        """The contributions that are complete here."""
        with self._transaction() as tx:
            rows = tx.execute(sa.select(_contributions).where(_is(_contributions, key))).all()
        return [Contribution(Identity.parse(r.hospital), r.upload_id, _some_share(r.share)) for r in rows]

    def prepare(self, key: RoundKey, prepared: Prepared) -> list[StoredShare]:
        """Keep the result of an attempt in place of an earlier one's, whose files are returned."""
        with self._transaction() as tx:
            record = _move(tx, key, RoundEvent.CLOSE)
            tx.execute(_rounds.update().where(_is(_rounds, key)).values(prepared=_dump_prepared(prepared)))
        return _files(record.prepared)

    def commit(self, key: RoundKey) -> list[StoredShare]:
        """Make the prepared result the round's: a new version, a closed round, no contributions.

        Returns the contributions' files, which nothing names any more.
        """
        with self._transaction() as tx:
            record = _move(tx, key, RoundEvent.COMMIT)
            assert record.prepared is not None  # the caller prepared it
            result = record.spec.result(record.prepared.survivors)
            tx.execute(
                _models.insert().values(
                    model_id=result.model_id,
                    spec=result.to_json(),
                    upload_id=record.prepared.computation_id,
                    share=_dump_share(record.prepared.result),
                )
            )
            dropped = _drop_contributions(tx, key)
            self._trail.append(tx, events.round_closed(record.spec, record.prepared))
            return dropped

    def forget_round(self, key: RoundKey, *, attempt: int) -> list[StoredShare]:
        """Forget a round that is not closed; the files that nothing names any more.

        Raises `FailedPrecondition` when a newer attempt than `attempt` is open: the order came late.
        """
        with self._transaction() as tx:
            record = _move(tx, key, RoundEvent.ABANDON)
            if record.spec.attempt > attempt:
                record.spec.check_attempt(attempt)
            tx.execute(_rounds.delete().where(_is(_rounds, key)))
            files = _files(record.prepared) + _drop_contributions(tx, key)
            self._trail.append(tx, events.round_abandoned(record.spec))
            return files

    def share_fetched(self, what: str) -> None:
        """Enter into the audit trail that the caller is about to get this party's share of something."""
        with self._transaction() as tx:
            self._trail.append(tx, events.share_fetched(what))

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


def _is(table: sa.Table, key: RoundKey) -> sa.ColumnElement[bool]:
    return (table.c.study_id == key.study_id) & (table.c.number == key.number)


def _round(tx: sa.Connection, key: RoundKey) -> RoundRecord:
    row = tx.execute(sa.select(_rounds).where(_is(_rounds, key))).one_or_none()
    if row is None:
        raise NotFound(f"This party knows no {key}. It was never opened here, or it was abandoned.")
    return RoundRecord(RoundSpec.from_json(row.spec), RoundState(row.state), _load_prepared(row.prepared))


def _move(tx: sa.Connection, key: RoundKey, event: RoundEvent) -> RoundRecord:
    """Apply one event of the table; the round as it was before."""
    record = _round(tx, key)
    after = move(ROUND_TABLE, record.state, event, what=f"The {key}")
    tx.execute(_rounds.update().where(_is(_rounds, key)).values(state=after.value))
    return record


def _drop_contributions(tx: sa.Connection, key: RoundKey) -> list[StoredShare]:
    shares = tx.scalars(sa.select(_contributions.c.share).where(_is(_contributions, key))).all()
    tx.execute(_contributions.delete().where(_is(_contributions, key)))
    return [_some_share(share) for share in shares]


def _files(prepared: Prepared | None) -> list[StoredShare]:
    if prepared is None:
        return []
    return [prepared.result] + ([prepared.metrics] if prepared.metrics else [])


def _dump_share(share: StoredShare) -> dict[str, Any]:
    return {
        "name": share.name,
        "context": share.context,
        "form": share.form.value,
        "ring": share.ring.bits,
        "length": share.length,
        "size_bytes": share.size_bytes,
    }


def _some_share(data: dict[str, Any]) -> StoredShare:
    ring, form = Ring(data["ring"]), Form(data["form"])
    return StoredShare(data["name"], data["context"], form, ring, data["length"], data["size_bytes"])


def _load_share(data: dict[str, Any] | None) -> StoredShare | None:
    return None if data is None else _some_share(data)


def _dump_prepared(prepared: Prepared) -> dict[str, Any]:
    return {
        "computation_id": prepared.computation_id,
        "survivors": [hospital.uri for hospital in prepared.survivors],
        "result": _dump_share(prepared.result),
        "metrics": _dump_share(prepared.metrics) if prepared.metrics else None,
        "sent_bytes": prepared.sent_bytes,
        "refused": [hospital.uri for hospital in prepared.refused],
    }


def _load_prepared(data: dict[str, Any] | None) -> Prepared | None:
    if data is None:
        return None
    # Results that the previous release prepared refuse nobody.
    survivors, refused = (
        tuple(Identity.parse(uri) for uri in data.get(key, ())) for key in ("survivors", "refused")
    )
    result, metrics = _some_share(data["result"]), _load_share(data["metrics"])
    return Prepared(data["computation_id"], survivors, result, metrics, data["sent_bytes"], refused)
