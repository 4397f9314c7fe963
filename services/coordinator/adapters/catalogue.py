"""Nodes and datasets as rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import ColumnElement, Row, Select, Table, delete, func, insert, literal, select
from sqlalchemy.orm import Session

from libs.core.errors import PermissionDenied
from services.coordinator import trail_events
from services.coordinator.adapters.gateway_tables import AssociationRow, DatasetRow, DatasetTagRow, NodeRow
from services.coordinator.adapters.transactions import Transactions
from services.coordinator.gateway_ports import Dataset, DatasetQuery, Node
from services.coordinator.ports import Page
from services.coordinator.states import AssociationState

_NODES = cast(Table, NodeRow.__table__)
_DATASETS = cast(Table, DatasetRow.__table__)
_TAGS = cast(Table, DatasetTagRow.__table__)
_BETWEEN_TAGS = "\n"  # no part of a tag: those are printable


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
        query = select(_NODES).where(_NODES.c.identity.in_(_approved_hospitals())).order_by(_NODES.c.identity)
        rows = self._transactions.read(query)
        return [Node(row.identity, row.name, row.last_seen, row.version) for row in rows]

    def save_dataset(self, dataset: Dataset) -> None:
        """Store or overwrite. PermissionDenied unless the hospital's association is approved."""
        tags = [{"dataset_id": dataset.dataset_id, "tag": tag} for tag in dataset.tags]
        with self._transactions.begin() as session:
            _require_approved(session, dataset.hospital)
            known = _stored(session, [dataset.dataset_id])
            if known and replace(known[0], published_at=dataset.published_at) == dataset:
                return  # hospitals say it again whenever they attach
            if known:
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
        return {row.hospital: row.number for row in self._transactions.read(query)}

    def page_of_datasets(
        self, query: DatasetQuery, *, online: Collection[str] = (), after: str, limit: int
    ) -> Page[Dataset]:
        """In the order of ids. `online`: the hospitals that `query.online_only` stands for."""
        chosen = _chosen(query, online, after).limit(limit + 1).subquery()
        rows = self._transactions.read(
            _described()
            .join(chosen, chosen.c.dataset_id == _DATASETS.c.dataset_id)
            .order_by(chosen.c.dataset_id)
        )
        shown = tuple(map(_dataset_of, rows[:limit]))
        return Page(shown, shown[-1].dataset_id if len(rows) > limit else "")


def _chosen(query: DatasetQuery, online: Collection[str], after: str) -> Select[Any]:
    """Ids of the datasets that match, in their order, behind `after`.

    The first tag leads: its index gives ids in their order, so a page costs its own length and not the
    catalogue's. Tags alone are answered by that index: no description is read that the page does not show.
    """
    leading = _TAGS.alias() if query.tags else _DATASETS
    key = leading.c.dataset_id
    ids = select(key).where(key > after).order_by(key)
    if query.tags:
        ids = ids.where(leading.c.tag == query.tags[0])
    for tag in query.tags[1:]:
        # Looked up for each id: as a join, PostgreSQL without statistics took seconds for four tags. It takes
        # NOT NULL for likely, and so walks the index in order until the page is full; `= 1` made it sort all.
        other = _TAGS.alias()
        has_tag = select(literal(1)).where(other.c.dataset_id == key, other.c.tag == tag)
        ids = ids.where(has_tag.scalar_subquery().is_not(None))
    conditions = list(_conditions(query, online))
    if conditions and leading is not _DATASETS:
        ids = ids.join(_DATASETS, _DATASETS.c.dataset_id == key)
    return ids.where(*conditions)


def _conditions(query: DatasetQuery, online: Collection[str]) -> Iterator[ColumnElement[bool]]:
    """What is asked of the description itself."""
    if query.min_images:
        yield _DATASETS.c.images >= query.min_images
    if query.max_images:
        yield _DATASETS.c.images <= query.max_images
    if query.name_contains:
        yield _DATASETS.c.name.icontains(query.name_contains, autoescape=True)
    if query.modality:
        yield _DATASETS.c.modality_key == query.modality
    if query.online_only:
        yield _DATASETS.c.hospital.in_(sorted(online))


def _described() -> Select[Any]:
    """Datasets with their tags, in one statement: one round trip, and one moment of the database.

    Rows, not objects of the ORM: a page is only read, and this is half of what it costs.
    """
    tags = select(func.aggregate_strings(_TAGS.c.tag, _BETWEEN_TAGS)).where(
        _TAGS.c.dataset_id == _DATASETS.c.dataset_id
    )
    return select(_DATASETS, tags.scalar_subquery().label("tags"))


def _stored(session: Session, dataset_ids: Sequence[str]) -> tuple[Dataset, ...]:
    """Those of the ids that exist."""
    rows = session.execute(_described().where(_DATASETS.c.dataset_id.in_(dataset_ids)))
    return tuple(map(_dataset_of, rows))


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


def _dataset_of(row: Row[Any]) -> Dataset:
    return Dataset(
        dataset_id=row.dataset_id,
        hospital=row.hospital,
        name=row.name,
        description=row.description,
        tags=tuple(sorted(row.tags.split(_BETWEEN_TAGS))) if row.tags else (),
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
