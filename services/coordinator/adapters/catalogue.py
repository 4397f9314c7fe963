"""Nodes and datasets as rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Row, Select, Table, delete, func, insert, select
from sqlalchemy.orm import Session

from libs.core.errors import PermissionDenied
from services.coordinator import trail_events
from services.coordinator.adapters.gateway_tables import AssociationRow, DatasetRow, DatasetTagRow, NodeRow
from services.coordinator.adapters.transactions import Transactions
from services.coordinator.gateway_ports import Dataset, DatasetQuery, Node
from services.coordinator.ports import Page
from services.coordinator.states import AssociationState

_DATASETS = cast(Table, DatasetRow.__table__)
_TAGS = cast(Table, DatasetTagRow.__table__)


class SqlCatalogue:
    """The CatalogueStore port on SQLAlchemy."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def save_node(self, node: Node) -> None:
        """Store or overwrite a node."""
        row = NodeRow(identity=node.identity, name=node.name, last_seen=node.last_seen, version=node.version)
        with self._transactions.begin() as session:
            session.merge(row)

    def nodes(self) -> list[Node]:
        """Those with an approved association, by identity."""
        query = select(NodeRow).where(NodeRow.identity.in_(_approved_hospitals())).order_by(NodeRow.identity)
        with self._transactions.begin() as session:
            return [
                Node(row.identity, row.name, row.last_seen, row.version) for row in session.scalars(query)
            ]

    def save_dataset(self, dataset: Dataset) -> None:
        """Store or overwrite. PermissionDenied unless the hospital's association is approved."""
        tags = [{"dataset_id": dataset.dataset_id, "tag": tag} for tag in dataset.tags]
        with self._transactions.begin() as session:
            _require_approved(session, dataset.hospital)
            known = _stored(session, [dataset.dataset_id])
            if known and replace(known[0], published_at=dataset.published_at) == dataset:
                return  # hospitals say it again whenever they attach
            _delete(session, dataset.dataset_id)
            session.execute(insert(_DATASETS), _values_of(dataset))
            if tags:
                session.execute(insert(_TAGS), tags)
            self._transactions.enter(session, trail_events.dataset_published(dataset))

    def remove_dataset(self, dataset_id: str) -> None:
        """Forget a dataset; nothing happens if there is none."""
        with self._transactions.begin() as session:
            if _stored(session, [dataset_id]):
                _delete(session, dataset_id)
                self._transactions.enter(session, trail_events.dataset_withdrawn(dataset_id))

    def datasets(self, dataset_ids: Sequence[str]) -> dict[str, Dataset]:
        """Those of the ids that exist."""
        with self._transactions.begin() as session:
            return {dataset.dataset_id: dataset for dataset in _stored(session, dataset_ids)}

    def dataset_counts(self) -> dict[str, int]:
        """Hospital -> number of its datasets; without those that have none."""
        query = select(DatasetRow.hospital, func.count().label("number")).group_by(DatasetRow.hospital)
        with self._transactions.begin() as session:
            return {row.hospital: row.number for row in session.execute(query)}

    def page_of_datasets(
        self, query: DatasetQuery, *, online: Collection[str] = (), after: str, limit: int
    ) -> Page[Dataset]:
        """In the order of ids. `online`: the hospitals that `query.online_only` stands for."""
        rows_query = _tagged(query.tags, after)
        if query.min_images:
            rows_query = rows_query.where(DatasetRow.images >= query.min_images)
        if query.max_images:
            rows_query = rows_query.where(DatasetRow.images <= query.max_images)
        if query.name_contains:
            rows_query = rows_query.where(DatasetRow.name.icontains(query.name_contains, autoescape=True))
        if query.modality:
            rows_query = rows_query.where(DatasetRow.modality_key == query.modality)
        if query.online_only:
            rows_query = rows_query.where(DatasetRow.hospital.in_(sorted(online)))
        with self._transactions.begin() as session:
            rows = session.execute(rows_query.limit(limit + 1)).all()
            shown = _with_tags(session, rows[:limit])
        return Page(shown, shown[-1].dataset_id if len(rows) > limit else "")


def _tagged(tags: Sequence[str], after: str) -> Select[Any]:
    """Datasets with all of the tags, by id, behind `after`.

    The first tag leads: its index gives ids in their order, so a page costs its own length and not the
    catalogue's.
    """
    query = select(_DATASETS)
    key = _DATASETS.c.dataset_id
    for number, tag in enumerate(tags):
        tagged = _TAGS.alias()
        query = query.join(tagged, tagged.c.dataset_id == _DATASETS.c.dataset_id).where(tagged.c.tag == tag)
        key = tagged.c.dataset_id if number == 0 else key
    return query.where(key > after).order_by(key)


def _stored(session: Session, dataset_ids: Sequence[str]) -> tuple[Dataset, ...]:
    """Those of the ids that exist."""
    rows = session.execute(select(_DATASETS).where(_DATASETS.c.dataset_id.in_(dataset_ids))).all()
    return _with_tags(session, rows)


def _with_tags(session: Session, rows: Sequence[Row[Any]]) -> tuple[Dataset, ...]:
    """The datasets of these rows; their tags come with one more query, however many they are.

    Rows, not objects of the ORM: a page is only read, and this is half of what it costs.
    """
    tags: defaultdict[str, list[str]] = defaultdict(list)
    ids = [row.dataset_id for row in rows]
    for dataset_id, tag in session.execute(select(_TAGS).where(_TAGS.c.dataset_id.in_(ids))):
        tags[dataset_id].append(tag)
    return tuple(_dataset_of(row, tuple(sorted(tags[row.dataset_id]))) for row in rows)


def _delete(session: Session, dataset_id: str) -> None:
    session.execute(delete(_TAGS).where(_TAGS.c.dataset_id == dataset_id))
    session.execute(delete(_DATASETS).where(_DATASETS.c.dataset_id == dataset_id))


def _approved_hospitals() -> Select[str]:
    return select(AssociationRow.hospital).where(AssociationRow.state == AssociationState.APPROVED.value)


def _require_approved(session: Session, hospital: str) -> None:
    """A description that was on its way when its hospital was revoked must not come back afterwards."""
    if session.scalar(_approved_hospitals().where(AssociationRow.hospital == hospital).limit(1)) is None:
        raise PermissionDenied(
            "This hospital does not belong to the federation. Its operator has to approve it first."
        )


def _values_of(dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset_id": dataset.dataset_id,
        "hospital": dataset.hospital,
        "name": dataset.name,
        "description": dataset.description,
        "modality": dataset.modality,
        "images": dataset.images,
        "modality_key": dataset.modality.casefold(),
        "version": dataset.version,
        "licence": dataset.licence,
        "content_hash": dataset.content_hash,
        "schema_json": dataset.schema,
        "disclosed_counts": dict(dataset.disclosed_counts),
        "disclosure": dataset.disclosure,
        "mock_recipe": dataset.mock_recipe,
        "mock_hash": dataset.mock_hash,
        "published_at": dataset.published_at,
    }


def _dataset_of(row: Row[Any], tags: tuple[str, ...]) -> Dataset:
    return Dataset(
        dataset_id=row.dataset_id,
        hospital=row.hospital,
        name=row.name,
        description=row.description,
        tags=tags,
        modality=row.modality,
        images=row.images,
        published_at=row.published_at,
        version=row.version,
        licence=row.licence,
        content_hash=row.content_hash,
        schema=row.schema_json,
        disclosed_counts=row.disclosed_counts,
        disclosure=row.disclosure,
        mock_recipe=row.mock_recipe,
        mock_hash=row.mock_hash,
    )
