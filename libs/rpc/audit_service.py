"""AuditService: every service hands out its own trail, signed to its end. The one implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa

from libs.core.clock import Clock
from libs.core.errors import FailedPrecondition
from libs.rpc._generated.trefoil.audit.v1 import audit_pb2, audit_pb2_grpc
from libs.rpc.caller import current_actor, current_request_id
from libs.rpc.identity import Identity, TlsFiles
from libs.rpc.server import RpcServer
from libs.rpc.signing import TlsSigner
from libs.runtime.audit.entry import Event, canonical
from libs.runtime.audit.log import AuditLog
from libs.runtime.audit.tables import AuditTables
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.audit.writer import AuditWriter

PAGE = 500
"""Entries that are read in one transaction; the next ones may be written in between."""

_NAME = audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name


def own_trail(*, me: Identity, tables: AuditTables, tls: TlsFiles, clock: Clock) -> AuditTrail:
    """The trail of the service `me`, signed with its TLS key.

    FailedPrecondition when the certificate is of somebody else, InvalidInput when it cannot be read.
    """
    signer = TlsSigner(tls)
    if signer.identity != me.uri:
        raise FailedPrecondition(
            f"The certificate {tls.certificate} is of {signer.identity}, and this is {me.uri}. "
            "Check the tls settings."
        )
    return AuditTrail(trail=me.uri, tables=tables, clock=clock, signer=signer)


def trail_writer(engine: sa.Engine, trail: AuditTrail, clock: Clock) -> AuditWriter:
    """The writer of a service's trail; give its `refused` to the server."""
    return AuditWriter(AuditLog(engine, trail), clock)


def serve_trail(server: RpcServer, writer: AuditWriter) -> None:
    """Offer the trail's export. The writer ends after the server's last call, and signs what there is."""
    server.add(audit_pb2_grpc.add_AuditServiceServicer_to_server, AuditService(writer), _NAME)
    server.after_stop(lambda: asyncio.to_thread(writer.close))


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    """Exports one trail."""

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer

    async def ExportTrail(  # noqa: N802  # RPC methods carry their proto names
        self, request: audit_pb2.ExportTrailRequest, context: Any
    ) -> AsyncIterator[audit_pb2.ExportTrailResponse]:
        """The lines after an entry, up to a checkpoint that is signed now. The asking is an entry too."""
        log = self._writer.log
        self._writer.submit(
            Event(
                "trail.exported",
                current_actor(),
                log.trail.name,
                request_id=current_request_id() or "",
                details={"after": request.after},
            )
        )
        await asyncio.to_thread(self._writer.checkpoint)
        after, end = request.after, await asyncio.to_thread(log.end)
        while after < end:
            page = await asyncio.to_thread(log.page, after=after, limit=min(PAGE, end - after))
            if not page:
                return
            for line in page:
                yield audit_pb2.ExportTrailResponse(line=canonical(line))
            after = page[-1]["sequence"]
