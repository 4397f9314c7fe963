"""What is handed to the writer is in the trail after a flush, in its order, and nothing waits for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from libs.core.clock import SystemClock
from libs.core.errors import Unavailable
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import party_identity
from libs.runtime.audit import writer as writer_module
from libs.runtime.audit.entry import Event
from libs.runtime.audit.refusals import Refusal
from libs.runtime.audit.writer import MAX_WAITING, AuditWriter
from tests.fakes.audit import TrailRig, issue, numbered, open_trail


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[TrailRig]:
    files = issue(DevelopmentCa(), party_identity(1), tmp_path / "keys")
    with open_trail(f"sqlite:///{tmp_path / 'audit.db'}", files) as rig:
        yield rig


def test_closing_writes_and_signs_what_is_left(rig: TrailRig) -> None:
    writer = AuditWriter(rig.log, SystemClock())
    writer.start()
    for event in numbered(30):
        writer.submit(event)
    refusal = Refusal("eve", "/a.B/C", "unauthenticated")
    for _ in range(3):
        writer.refused(refusal)
    writer.close()
    lines = rig.log.page(after=0, limit=100)
    assert [line.get("object") for line in lines[:30]] == [f"set-{n}" for n in range(30)]
    assert [line.get("action") for line in lines[30:]] == ["call.refused", "calls.refused", None]
    assert lines[31]["details"]["count"] == 2
    assert lines[-1]["kind"] == "checkpoint"
    assert lines[-1]["sequence"] == 32


def test_what_could_not_be_written_is_tried_again(rig: TrailRig) -> None:
    writer = AuditWriter(rig.log, SystemClock())
    for event in numbered(3):
        writer.submit(event)
    with rig.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE audit_head RENAME TO elsewhere"))
    with pytest.raises(Unavailable):
        writer.flush()
    with rig.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO audit_head"))
    writer.flush()
    assert [line["object"] for line in rig.log.page(after=0, limit=9)] == ["set-0", "set-1", "set-2"]


def test_when_the_trail_cannot_keep_up_nothing_new_begins(rig: TrailRig) -> None:
    writer = AuditWriter(rig.log, SystemClock())
    event = Event("prediction.opened", "system")
    writer.require_room()
    for _ in range(MAX_WAITING):
        writer.submit(event)
    with pytest.raises(Unavailable, match="audit trail"):
        writer.require_room()
    writer.submit(event)  # the end of what had begun
    writer.refused(Refusal("eve", "/a.B/C", "unauthenticated"))  # takes no room from it
    writer.flush()
    actions = {line["action"] for line in rig.log.page(after=0, limit=20_000) if line["kind"] == "entry"}
    assert actions == {"prediction.opened"}


def test_new_entries_are_signed_after_a_while(rig: TrailRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_S", 0.01)
    monkeypatch.setattr(writer_module, "CHECKPOINT_S", 0.05)
    writer = AuditWriter(rig.log, SystemClock())
    writer.start()
    try:
        writer.submit(Event("prediction.opened", "system"))
        query = sa.select(rig.tables.checkpoints.c.line)
        for _ in range(200):
            with rig.engine.begin() as connection:
                signed = connection.scalars(query).all()
            if signed:
                break
            writer_module.threading.Event().wait(0.02)
        assert json.loads(signed[0])["sequence"] == 1
    finally:
        writer.close()
