"""Tables whose rows are never changed or deleted: triggers in the database itself refuse it.

They stop mistakes and other programs. Whoever may alter the schema can remove them; against that, what is
worth proving is chained and signed (`libs/runtime/audit`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import sqlalchemy as sa

from libs.core.errors import Bug

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def append_only(table: sa.Table) -> sa.Table:
    """Have `metadata.create_all` make the table with its triggers, on SQLite and PostgreSQL. The table."""
    for dialect_name in _DIALECTS:
        for statement in append_only_ddl(table.name, dialect_name):
            sa.event.listen(table, "after_create", _ddl(statement, dialect_name))
    return table


def append_only_ddl(table_name: str, dialect_name: str) -> list[str]:
    """Statements that make the database refuse UPDATE and DELETE (TRUNCATE, too) on an existing table.

    A migration runs each with `op.execute`; the dialect's name is `op.get_bind().dialect.name`. On SQLite,
    Alembic's batch mode copies a table without its triggers: run them again.
    Bug for another dialect.
    """
    return _of(table_name, dialect_name)[0]


def append_only_removal_ddl(table_name: str, dialect_name: str) -> list[str]:
    """Statements that take the refusal back, before a migration that has to rewrite the table's rows."""
    return _of(table_name, dialect_name)[1]


def _ddl(statement: str, dialect_name: str) -> sa.schema.ExecutableDDLElement:
    ddl: sa.schema.ExecutableDDLElement = sa.DDL(statement)  # type: ignore[no-untyped-call]
    return ddl.execute_if(dialect=dialect_name)


def _of(table_name: str, dialect_name: str) -> tuple[list[str], list[str]]:
    if dialect_name not in _DIALECTS or not _NAME.fullmatch(table_name):
        raise Bug(f"no triggers are known for {table_name!r} on {dialect_name!r}")
    return _DIALECTS[dialect_name](table_name)


def _sqlite(table: str) -> tuple[list[str], list[str]]:
    """`INSERT OR REPLACE` deletes too; the trigger sees that with recursive_triggers, which `sql.py` sets."""
    create, drop = [], []
    for verb in ("update", "delete"):
        name = f"{table}_refuse_{verb}"
        create.append(
            f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {verb.upper()} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
        drop.append(f"DROP TRIGGER IF EXISTS {name}")
    return create, drop


def _postgresql(table: str) -> tuple[list[str], list[str]]:
    function, rows, whole = f"{table}_refuse", f"{table}_refuse_change", f"{table}_refuse_truncate"
    refuse = f"BEGIN RAISE EXCEPTION USING MESSAGE = '{table} is append-only'; END"
    call = f"EXECUTE FUNCTION {function}()"
    create = [
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ {refuse} $$",
        f"CREATE OR REPLACE TRIGGER {rows} BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {call}",
        f"CREATE OR REPLACE TRIGGER {whole} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {call}",
    ]
    drop = [
        f"DROP TRIGGER IF EXISTS {rows} ON {table}",
        f"DROP TRIGGER IF EXISTS {whole} ON {table}",
        f"DROP FUNCTION IF EXISTS {function}()",
    ]
    return create, drop


_DIALECTS: Mapping[str, Callable[[str], tuple[list[str], list[str]]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}
