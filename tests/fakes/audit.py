"""A trail in a database, signed with a real key under a real CA, and what an export of it looks like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from cryptography import x509

from libs.core.clock import SystemClock
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import Identity, TlsFiles, party_identity
from libs.rpc.signing import TlsSigner, read_authorities
from libs.runtime.audit.entry import Event
from libs.runtime.audit.log import AuditLog
from libs.runtime.audit.tables import AuditTables, audit_tables
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.sql import open_engine

AUDIT = audit_tables(sa.MetaData())
"""Tables of a service that does nothing else."""


@dataclass(frozen=True)
class TrailRig:
    """A trail and everything that a test needs to look at it."""

    engine: sa.Engine
    tables: AuditTables
    trail: AuditTrail
    log: AuditLog
    authorities: list[x509.Certificate]

    def exported(self) -> list[str]:
        """The whole trail as lines, signed at its end."""
        self.log.checkpoint()
        return [json.dumps(line) for line in self.log.page(after=0, limit=1_000_000)]


def issue(ca: DevelopmentCa, identity: Identity, folder: Path) -> TlsFiles:
    """Key and certificate of `identity` in a new folder."""
    ca.issue(identity, folder)
    return TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")


@contextmanager
def open_trail(url: str, files: TlsFiles) -> Iterator[TrailRig]:
    """The trail of whoever has these files, in the database at `url`. Its tables are made if need be."""
    engine = open_engine(url)
    AUDIT.entries.metadata.create_all(engine)
    signer = TlsSigner(files)
    trail = AuditTrail(trail=signer.identity, tables=AUDIT, clock=SystemClock(), signer=signer)
    try:
        yield TrailRig(engine, AUDIT, trail, AuditLog(engine, trail), read_authorities(files.ca.read_bytes()))
    finally:
        engine.dispose()


def unsigned_trail(tables: AuditTables) -> AuditTrail:
    """A trail for tests that look at something else."""
    return AuditTrail(trail=party_identity(0).uri, tables=tables, clock=SystemClock())


def numbered(count: int) -> list[Event]:
    """Events that differ."""
    return [
        Event(
            "dataset.published", "spiffe://trefoil.local/client/ada (ada)", f"set-{n}", details={"images": n}
        )
        for n in range(count)
    ]
