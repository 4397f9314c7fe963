"""The coordinator's memory in SQLite or PostgreSQL.

Calls are synchronous and short: a few rows by primary key (DECISIONS.md, synchronous storage).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine, inspect, select
from sqlalchemy.exc import DatabaseError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound, Unavailable
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.sql import open_engine, unavailable_when_down
from services.coordinator import trail_events
from services.coordinator.adapters.study_rows import study_of, write_study
from services.coordinator.adapters.tables import (
    Base,
    DatasetRow,
    DatasetTagRow,
    MemberRow,
    ModelRow,
    NodeRow,
    SchemaVersionRow,
    StudyRow,
)
from services.coordinator.domain import Study
from services.coordinator.model_access import ModelUse
from services.coordinator.ports import Dataset, DatasetQuery, Model, Node, Page
from services.coordinator.states import ENDED

SCHEMA_VERSION = 2
_ENDED = [state.value for state in ENDED]
T = TypeVar("T")


def open_database(url: str, trail: AuditTrail) -> Database:
    """The database at `url`, its tables made if it is empty. Changes are entered into `trail`.

    Raises InvalidInput for a URL that names no database, FailedPrecondition for tables of another version
    or of something else, Unavailable when it cannot be reached.
    """
    try:
        # A crash of the process loses nothing, one of the machine at most the last moments, and asking the
        # parties again makes up for those.
        engine = open_engine(url, synchronous="NORMAL")
    except (SQLAlchemyError, ImportError) as error:
        raise InvalidInput(
            "The setting database is not a usable URL. Use sqlite:///FILE, or postgresql+psycopg://... "
            "with the extra trefoil[postgresql] installed."
        ) from error
    try:
        _prepare_schema(engine)
    except DatabaseError as error:
        raise Unavailable(
            "The coordinator's database cannot be opened. Check that its folder exists and is writable, that "
            "the file is a database, or that the database server runs."
        ) from error
    return Database(engine, trail)


def _prepare_schema(engine: Engine) -> None:
    tables = set(inspect(engine).get_table_names())
    if not tables:
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add(SchemaVersionRow(version=SCHEMA_VERSION))
        return
    versions: list[int] = []
    if SchemaVersionRow.__tablename__ in tables:
        with Session(engine) as session:
            versions = list(session.scalars(select(SchemaVersionRow.version)))
    if versions != [SCHEMA_VERSION]:
        found = f"schema version {versions[0]}" if len(versions) == 1 else "tables of something else"
        raise FailedPrecondition(
            f"The coordinator's database has {found}; this coordinator works with version {SCHEMA_VERSION}. "
            "Start the version of Trefoil that wrote it, or name another database in the settings."
        )


class Database:
    """The Repository port on SQLAlchemy."""

    def __init__(self, engine: Engine, trail: AuditTrail) -> None:
        self._engine, self._trail = engine, trail
        self._sessions = sessionmaker(engine, expire_on_commit=False)

    @property
    def engine(self) -> Engine:
        """For what else is written into the audit trail."""
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        """One transaction. Unavailable when the database is down, restarts, or is locked for long."""
        with unavailable_when_down("The coordinator's database"), self._sessions.begin() as session:
            yield session

    def _enter(self, session: Session, event: Event) -> None:
        """Enter what this transaction does into the audit trail, as its last step."""
        session.flush()
        self._trail.append(session.connection(), event)

    def record(self, event: Event) -> None:
        """Enter something into the audit trail that changes nothing else."""
        with self._transaction() as session:
            self._enter(session, event)

    # ------------------------------------------------------------ studies

    def add_study(self, study: Study) -> None:
        """Store a new study. AlreadyExists if its id is taken."""
        row = StudyRow()
        write_study(row, study)
        try:
            with self._transaction() as session:
                session.add(row)
                self._enter(session, trail_events.study_created(study))
        except IntegrityError:
            raise AlreadyExists(f"The study {study.study_id} exists already.") from None

    def study(self, study_id: str) -> Study | None:
        """The study, or None."""
        with self._transaction() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.study_id == study_id))
            return None if row is None else study_of(row)

    def update_study(self, study_id: str, change: Callable[[Study], Study]) -> Study:
        """Read, change and write in one transaction; nothing is written when `change` raises."""
        with self._transaction() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.study_id == study_id).with_for_update())
            if row is None:
                raise NotFound(f"There is no study {study_id}. Check its name in the list of studies.")
            before = study_of(row)
            after = change(before)
            if after != before:
                write_study(row, after)
                for event in trail_events.study_changes(before, after):
                    self._enter(session, event)
            return after

    def live_studies(self) -> list[Study]:
        """All that have not ended."""
        with self._transaction() as session:
            rows = session.scalars(select(StudyRow).where(StudyRow.state.not_in(_ENDED)))
            return [study_of(row) for row in rows]

    def studies_with_untold_end(self, hospital: str) -> list[Study]:
        """Ended studies of which this hospital was not told yet."""
        untold = select(MemberRow.study_id).where(
            MemberRow.hospital == hospital, MemberRow.end_told.is_(False)
        )
        query = select(StudyRow).where(StudyRow.state.in_(_ENDED), StudyRow.study_id.in_(untold))
        with self._transaction() as session:
            return [study_of(row) for row in session.scalars(query)]

    def page_of_studies(self, *, after: str, limit: int) -> Page[Study]:
        """In the order of creation."""
        query = select(StudyRow).where(StudyRow.sequence > int(after or 0)).order_by(StudyRow.sequence)
        with self._transaction() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            return _page(rows, limit, study_of, lambda row: str(row.sequence))

    # ------------------------------------------------------------ catalogue

    def save_node(self, node: Node) -> None:
        """Store or overwrite a node."""
        with self._transaction() as session:
            session.merge(NodeRow(identity=node.identity, name=node.name, last_seen=node.last_seen))

    def nodes(self) -> list[Node]:
        """All, by identity."""
        with self._transaction() as session:
            rows = session.scalars(select(NodeRow).order_by(NodeRow.identity))
            return [Node(row.identity, row.name, row.last_seen) for row in rows]

    def save_dataset(self, dataset: Dataset) -> None:
        """Store or overwrite a dataset's description."""
        row = DatasetRow(
            dataset_id=dataset.dataset_id,
            hospital=dataset.hospital,
            name=dataset.name,
            description=dataset.description,
            modality=dataset.modality,
            images=dataset.images,
            tags=[DatasetTagRow(dataset_id=dataset.dataset_id, tag=tag) for tag in dataset.tags],
        )
        with self._transaction() as session:
            known = session.get(DatasetRow, dataset.dataset_id)
            if known is not None and _dataset_of(known) == dataset:
                return  # hospitals say it again whenever they attach
            session.merge(row)
            self._enter(session, trail_events.dataset_published(dataset))

    def remove_dataset(self, dataset_id: str) -> None:
        """Forget a dataset; nothing happens if there is none."""
        with self._transaction() as session:
            row = session.get(DatasetRow, dataset_id)
            if row is not None:
                session.delete(row)
                self._enter(session, trail_events.dataset_withdrawn(dataset_id))

    def datasets(self, dataset_ids: Sequence[str]) -> dict[str, Dataset]:
        """Those of the ids that exist."""
        with self._transaction() as session:
            rows = session.scalars(select(DatasetRow).where(DatasetRow.dataset_id.in_(dataset_ids)))
            return {row.dataset_id: _dataset_of(row) for row in rows}

    def page_of_datasets(self, query: DatasetQuery, *, after: str, limit: int) -> Page[Dataset]:
        """In the order of ids."""
        rows_query = select(DatasetRow).where(
            DatasetRow.dataset_id > after, DatasetRow.images >= query.min_images
        )
        for tag in query.tags:
            rows_query = rows_query.where(DatasetRow.tags.any(DatasetTagRow.tag == tag))
        if query.name_contains:
            rows_query = rows_query.where(DatasetRow.name.icontains(query.name_contains, autoescape=True))
        with self._transaction() as session:
            rows = list(session.scalars(rows_query.order_by(DatasetRow.dataset_id).limit(limit + 1)))
            return _page(rows, limit, _dataset_of, lambda row: row.dataset_id)

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
            with self._transaction() as session:
                session.add(row)
                self._enter(session, trail_events.model_added(model))
        except IntegrityError:
            return self.model(model.model_id) or model
        return model

    def model(self, model_id: str) -> Model | None:
        """The model, or None."""
        with self._transaction() as session:
            row = session.scalar(select(ModelRow).where(ModelRow.model_id == model_id))
            return None if row is None else _model_of(row)

    def mark_model_ready(self, model_id: str) -> None:
        """It can be asked from now on."""
        with self._transaction() as session:
            row = session.scalar(select(ModelRow).where(ModelRow.model_id == model_id))
            if row is not None:
                row.ready = True

    def page_of_models(self, *, after: str, limit: int) -> Page[Model]:
        """In the order of creation."""
        query = select(ModelRow).where(ModelRow.sequence > int(after or 0)).order_by(ModelRow.sequence)
        with self._transaction() as session:
            rows = list(session.scalars(query.limit(limit + 1)))
            return _page(rows, limit, _model_of, lambda row: str(row.sequence))


Row = TypeVar("Row")


def _page(rows: list[Row], limit: int, convert: Callable[[Row], T], key: Callable[[Row], str]) -> Page[T]:
    """The first `limit` of up to `limit + 1` rows; the one beyond shows that there is another page."""
    shown = rows[:limit]
    return Page(tuple(convert(row) for row in shown), key(shown[-1]) if len(rows) > limit else "")


def _dataset_of(row: DatasetRow) -> Dataset:
    return Dataset(
        dataset_id=row.dataset_id,
        hospital=row.hospital,
        name=row.name,
        description=row.description,
        tags=tuple(tag.tag for tag in row.tags),
        modality=row.modality,
        images=row.images,
    )


def _model_of(row: ModelRow) -> Model:
    use = ModelUse.from_data(row.use)
    return Model(row.model_id, row.name, row.plan, row.plan_hash, row.owner, row.created_at, row.ready, use)
