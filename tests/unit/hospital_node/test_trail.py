"""The node's trail in the tables that its migrations make, on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from libs.runtime.migrations import migrate
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import MIGRATIONS, Transactions
from tests.fakes.audit import numbered, unsigned_trail


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_entries SET actor = 'nobody'", "DELETE FROM audit_entries"]
)
def test_the_migrated_tables_only_grow(transactions: Transactions, statement: str) -> None:
    trail = unsigned_trail(AUDIT)
    transactions.run_blocking(lambda session: trail.append(session.connection(), numbered(1)[0]))
    with pytest.raises(DBAPIError, match="append-only"):
        transactions.run_blocking(lambda session: session.execute(sa.text(statement)))


def test_the_migrated_tables_are_those_of_the_trail(transactions: Transactions) -> None:
    inspector = sa.inspect(transactions.engine)
    for table in (AUDIT.entries, AUDIT.head, AUDIT.checkpoints):
        made = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
        assert made == {column.name: column.nullable for column in table.columns}


def test_migrating_back_takes_the_trail_away_and_forth_makes_it_anew(transactions: Transactions) -> None:
    migrate(transactions.engine, MIGRATIONS, to="0004")
    assert "audit_entries" not in sa.inspect(transactions.engine).get_table_names()
    migrate(transactions.engine, MIGRATIONS)
    assert "audit_entries" in sa.inspect(transactions.engine).get_table_names()
