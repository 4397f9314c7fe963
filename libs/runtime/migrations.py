"""Schemas of services' databases, moved forward and back by Alembic.

Each service has scripts in `migrations/versions/` and no `env.py`; `migrate` runs them in one transaction of
an engine of `sql.open_engine`, so several processes that start at once do it one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, inspect, text

from libs.core.errors import FailedPrecondition, InvalidInput


def migrate(engine: Engine, scripts: Path, *, to: str = "head") -> str:
    """Bring the database to revision `to` ("head", "base", or one's name); the revision it is at afterwards.

    All or nothing: on both databases schema changes are part of the transaction. InvalidInput for an unknown
    revision, FailedPrecondition for tables that no migration made or of a newer release.
    """
    directory = ScriptDirectory(str(scripts))
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        current = context.get_current_revision()
        _require_ours(connection, current, directory)
        try:
            steps = _steps(directory, current, to)
        except CommandError as error:
            raise InvalidInput(
                f"There is no migration {to!r}. Use head, base, or a revision's name."
            ) from error
        with Operations.context(context):
            for revision, step in steps:
                step()
                _stamp(connection, context, revision)
        return MigrationContext.configure(connection).get_current_revision() or "base"


def revision_of(engine: Engine) -> str:
    """The revision that the database is at; "base" without tables."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() or "base"


def head_of(scripts: Path) -> str:
    """The newest revision that this release knows."""
    return ScriptDirectory(str(scripts)).get_current_head() or "base"


def _require_ours(connection: Connection, current: str | None, directory: ScriptDirectory) -> None:
    if current is not None:
        known = {script.revision for script in directory.walk_revisions()}
        if current not in known:
            raise FailedPrecondition(
                f"The database is at revision {current}, which this release does not know. Run the release "
                "that made it, or migrate it back with that release first."
            )
    elif set(inspect(connection).get_table_names()) - {"alembic_version"}:
        raise FailedPrecondition(
            "The database has tables that no migration of this service made. Set the setting database to an "
            "empty database or file; nothing was changed."
        )


def _steps(
    directory: ScriptDirectory, current: str | None, to: str
) -> list[tuple[str | None, Callable[[], Any]]]:
    """(revision afterwards, what to run), in order."""
    target = directory.get_current_head() if to == "head" else None if to == "base" else to
    if target is not None:
        script = directory.get_revision(target)
        target = script.revision if script is not None else None
    path = _path(directory)
    here = path.index(current) if current is not None else -1
    there = path.index(target) if target is not None else -1
    modules = [directory.get_revision(name).module for name in path]
    if there >= here:
        return [(path[i], modules[i].upgrade) for i in range(here + 1, there + 1)]
    return [(path[i - 1] if i else None, modules[i].downgrade) for i in range(here, there, -1)]


def _path(directory: ScriptDirectory) -> list[str]:
    """All revisions, oldest first. There are no branches."""
    return [script.revision for script in reversed(list(directory.walk_revisions()))]


def _stamp(connection: Connection, context: MigrationContext, revision: str | None) -> None:
    context._ensure_version_table()
    connection.execute(text("DELETE FROM alembic_version"))
    if revision is not None:
        connection.execute(
            text("INSERT INTO alembic_version (version_num) VALUES (:revision)"), {"revision": revision}
        )
