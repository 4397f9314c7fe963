"""The table of data sets: a row for each version, also for those that were withdrawn."""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import DateTime, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from libs.data.disclosure import CountDisclosure
from services.hospital_node.adapters.tables import Base, utc
from services.hospital_node.domain import Dataset

_PUBLISHED = text("withdrawn_at IS NULL")


class DatasetRow(Base):
    """One version of a data set."""

    __tablename__ = "dataset_versions"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    description: Mapped[str]
    tags: Mapped[str]
    path: Mapped[str]
    images: Mapped[int]
    patients: Mapped[int]
    images_per_class: Mapped[str]
    content_hash: Mapped[str]
    published_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    licence: Mapped[str]
    disclosure: Mapped[str] = mapped_column(String(20))
    schema: Mapped[str]
    mock_recipe: Mapped[str]
    mock_hash: Mapped[str]
    withdrawn_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    # Of the versions of a name, one at most is published.
    __table_args__ = (
        Index(
            "dataset_published",
            "name",
            unique=True,
            sqlite_where=_PUBLISHED,
            postgresql_where=_PUBLISHED,
        ),
    )


_SAME = (
    "name",
    "version",
    "description",
    "path",
    "images",
    "patients",
    "content_hash",
    "published_at",
    "licence",
    "mock_hash",
    "withdrawn_at",
)
"""Columns that hold their field as it is."""


def to_row(dataset: Dataset) -> DatasetRow:
    """The row of a version."""
    return DatasetRow(
        **{field: getattr(dataset, field) for field in _SAME},
        tags=json.dumps(dataset.tags),
        images_per_class=json.dumps(dict(dataset.images_per_class)),
        disclosure=dataset.disclosure.value,
        schema=dataset.schema.decode(),
        mock_recipe=dataset.mock_recipe.decode(),
    )


def to_dataset(row: DatasetRow) -> Dataset:
    """The version that a row holds."""
    values = {field: getattr(row, field) for field in _SAME}
    values["published_at"] = utc(row.published_at)
    values["withdrawn_at"] = None if row.withdrawn_at is None else utc(row.withdrawn_at)
    return Dataset(
        **values,
        tags=tuple(json.loads(row.tags)),
        images_per_class=json.loads(row.images_per_class),
        disclosure=CountDisclosure(row.disclosure),
        schema=row.schema.encode(),
        mock_recipe=row.mock_recipe.encode(),
    )
