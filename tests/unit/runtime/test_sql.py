"""Reading, deciding and writing is one step, whoever else writes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from libs.runtime.sql import open_engine, single_reads

table = sa.Table("counter", sa.MetaData(), sa.Column("value", sa.Integer))
THREADS, TIMES = 4, 10


def test_transactions_that_read_before_they_write_never_overwrite_each_other(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    table.metadata.create_all(engine)
    with engine.begin() as tx:
        tx.execute(table.insert().values(value=0))
    together = threading.Barrier(THREADS)

    def count() -> None:
        together.wait()
        for _ in range(TIMES):
            with engine.begin() as tx:
                value = tx.scalar(sa.select(table.c.value).with_for_update())
                tx.execute(table.update().values(value=value + 1))

    threads = [threading.Thread(target=count) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.begin() as tx:
        assert tx.scalar(sa.select(table.c.value)) == THREADS * TIMES
    engine.dispose()


def test_what_raises_is_rolled_back(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    table.metadata.create_all(engine)
    try:
        with engine.begin() as tx:
            tx.execute(table.insert().values(value=0))
            raise KeyError
    except KeyError:
        pass
    with engine.begin() as tx:
        assert tx.scalars(sa.select(table.c.value)).all() == []
    engine.dispose()


def test_a_single_read_waits_for_no_transaction_and_sees_what_is_committed(database_url: str) -> None:
    engine = open_engine(database_url)
    table.metadata.create_all(engine)

    def seen() -> list[int]:
        with single_reads(engine).connect() as connection:
            return list(connection.scalars(sa.select(table.c.value)))

    with ThreadPoolExecutor(1) as readers, engine.begin() as tx:
        tx.execute(table.insert().values(value=7))
        assert readers.submit(seen).result(timeout=5) == []
    assert seen() == [7]
    engine.dispose()


def test_a_connection_that_served_a_single_read_serves_transactions_again(database_url: str) -> None:
    engine = open_engine(database_url)
    table.metadata.create_all(engine)
    with single_reads(engine).connect() as connection:
        connection.scalars(sa.select(table.c.value)).all()
    with suppress(KeyError), engine.begin() as tx:
        tx.execute(table.insert().values(value=0))
        raise KeyError
    with engine.begin() as tx:
        assert tx.scalars(sa.select(table.c.value)).all() == []
    engine.dispose()
