"""Versions, disclosure and mocks of data sets."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_KEPT = (
    "name",
    "description",
    "tags",
    "path",
    "images",
    "patients",
    "images_per_class",
    "content_hash",
    "published_at",
)
_EMPTY = ("licence", "schema", "mock_recipe", "mock_hash")
_PUBLISHED = sa.text("withdrawn_at IS NULL")


def upgrade() -> None:
    """Each data set becomes the first version of its name.

    Its counts are withheld: its owner was never asked about counts by class. Publishing it again tells them.
    """
    op.create_table(
        "dataset_versions",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        *_described(),
        sa.Column("licence", sa.String, nullable=False),
        sa.Column("disclosure", sa.String(20), nullable=False),
        sa.Column("schema", sa.String, nullable=False),
        sa.Column("mock_recipe", sa.String, nullable=False),
        sa.Column("mock_hash", sa.String, nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_index(
        "dataset_published",
        "dataset_versions",
        ["name"],
        unique=True,
        sqlite_where=_PUBLISHED,
        postgresql_where=_PUBLISHED,
    )
    old, new = _table("datasets"), _table("dataset_versions")
    added = {"version": 1, "disclosure": "withheld"} | dict.fromkeys(_EMPTY, "")
    known = sa.select(*(old.c[name] for name in _KEPT), *(sa.literal(value) for value in added.values()))
    op.execute(new.insert().from_select([*_KEPT, *added], known))
    op.drop_table("datasets")


def downgrade() -> None:
    """Only what is published now; the release before knows no versions."""
    op.create_table("datasets", sa.Column("name", sa.String(200), primary_key=True), *_described())
    old, new = _table("datasets"), _table("dataset_versions")
    published = sa.select(*(new.c[name] for name in _KEPT)).where(new.c.withdrawn_at.is_(None))
    op.execute(old.insert().from_select(_KEPT, published))
    op.drop_table("dataset_versions")


def _table(name: str) -> sa.TableClause:
    added = () if name == "datasets" else ("version", "disclosure", "withdrawn_at", *_EMPTY)
    return sa.table(name, *(sa.column(column) for column in (*_KEPT, *added)))


def _described() -> list[sa.Column[object]]:
    return [
        sa.Column("description", sa.String, nullable=False),
        sa.Column("tags", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("patients", sa.Integer, nullable=False),
        sa.Column("images_per_class", sa.String, nullable=False),
        sa.Column("content_hash", sa.String, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
    ]
