"""The coordinator's memory in SQLite or PostgreSQL.

Calls are synchronous and short: a few rows by primary key (DECISIONS.md, synchronous storage).
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from libs.core.errors import AlreadyExists, NotFound
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from services.coordinator import trail_events
from services.coordinator.adapters.access_requests import SqlAccessRequests
from services.coordinator.adapters.associations import SqlAssociations
from services.coordinator.adapters.catalogue import SqlCatalogue
from services.coordinator.adapters.study_rows import study_of, write_study
from services.coordinator.adapters.tables import MemberRow, ModelRow, StudyRow
from services.coordinator.adapters.transactions import Transactions, open_transactions, page_of
from services.coordinator.domain import Study
from services.coordinator.model_access import ModelUse
from services.coordinator.ports import Model, Page
from services.coordinator.states import ENDED

_ENDED = [state.value for state in ENDED]


def open_database(url: str, trail: AuditTrail) -> Database:
    """The database at `url`. Changes are entered into `trail`. Raises what `open_transactions` raises."""
    return Database(open_transactions(url, trail))


class Database:
    """The Repository port on SQLAlchemy, and beside it the stores of the gateway."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self.catalogue = SqlCatalogue(transactions)
        self.associations = SqlAssociations(transactions)
        self.access_requests = SqlAccessRequests(transactions)

    @property
    def engine(self) -> Engine:
        """For what else is written into the audit trail."""
        return self._transactions.engine

    def close(self) -> None:
        """Close all connections."""
        self._transactions.engine.dispose()

    def record(self, event: Event) -> None:
        """Enter something into the audit trail that changes nothing else."""
        with self._transactions.begin() as session:
            self._transactions.enter(session, event)

    # ------------------------------------------------------------ studies

    def add_study(self, study: Study) -> None:
        """Store a new study. AlreadyExists if its id is taken."""
        row = StudyRow()
        write_study(row, study)
        try:
            with self._transactions.begin() as session:
                session.add(row)
                self._transactions.enter(session, trail_events.study_created(study))
        except IntegrityError:
            raise AlreadyExists(f"The study {study.study_id} exists already.") from None

    def study(self, study_id: str) -> Study | None:
        """The study, or None."""
        with self._transactions.begin() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.study_id == study_id))
            return None if row is None else study_of(row)

    def update_study(self, study_id: str, change: Callable[[Study], Study]) -> Study:
        """Read, change and write in one transaction; nothing is written when `change` raises."""
        with self._transactions.begin() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.study_id == study_id).with_for_update())
            if row is None:
                raise NotFound(f"There is no study {study_id}. Check its name in the list of studies.")
            before = study_of(row)
            after = change(before)
            if after != before:
                write_study(row, after)
                for event in trail_events.study_changes(before, after):
                    self._transactions.enter(session, event)
            return after

    def live_studies(self) -> list[Study]:
        """All that have not ended."""
        with self._transactions.begin() as session:
            rows = session.scalars(select(StudyRow).where(StudyRow.state.not_in(_ENDED)))
            return [study_of(row) for row in rows]

    def studies_with_untold_end(self, hospital: str) -> list[Study]:
        """Ended studies of which this hospital was not told yet."""
        untold = select(MemberRow.study_id).where(
            MemberRow.hospital == hospital, MemberRow.end_told.is_(False)
        )
        query = select(StudyRow).where(StudyRow.state.in_(_ENDED), StudyRow.study_id.in_(untold))
        with self._transactions.begin() as session:
            return [study_of(row) for row in session.scalars(query)]

    def page_of_studies(self, *, after: str, limit: int) -> Page[Study]:
        """In the order of creation."""
        query = select(StudyRow).where(StudyRow.sequence > int(after or 0)).order_by(StudyRow.sequence)
        with self._transactions.begin() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            return page_of(rows, limit, study_of, lambda row: str(row.sequence))

    # ------------------------------------------------------------ models

    def add_model(self, model: Model) -> Model:
        """Store a model, or give back the one that has its id already."""
        row = ModelRow(
            model_id=model.model_id,
            name=model.name,
            plan=model.plan,
            plan_hash=model.plan_hash,
            owner=model.owner,
            created_at=model.created_at,
            ready=model.ready,
            use=model.use.to_data(),
        )
        try:
            with self._transactions.begin() as session:
                session.add(row)
                self._transactions.enter(session, trail_events.model_added(model))
        except IntegrityError:
            return self.model(model.model_id) or model
        return model

    def model(self, model_id: str) -> Model | None:
        """The model, or None."""
        with self._transactions.begin() as session:
            row = session.scalar(select(ModelRow).where(ModelRow.model_id == model_id))
            return None if row is None else _model_of(row)

    def mark_model_ready(self, model_id: str) -> None:
        """It can be asked from now on."""
        with self._transactions.begin() as session:
            row = session.scalar(select(ModelRow).where(ModelRow.model_id == model_id))
            if row is not None:
                row.ready = True

    def page_of_models(self, *, after: str, limit: int) -> Page[Model]:
        """In the order of creation."""
        query = select(ModelRow).where(ModelRow.sequence > int(after or 0)).order_by(ModelRow.sequence)
        with self._transactions.begin() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            return page_of(rows, limit, _model_of, lambda row: str(row.sequence))


def _model_of(row: ModelRow) -> Model:
    use = ModelUse.from_data(row.use)
    return Model(row.model_id, row.name, row.plan, row.plan_hash, row.owner, row.created_at, row.ready, use)
