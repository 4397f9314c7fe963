"""Puts the coordinator together. Nothing else in it knows more than its neighbours."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from libs.core.clock import Clock, SystemClock
from libs.core.errors import TrefoilError
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from libs.rpc.audit_service import own_trail, serve_trail, trail_writer
from libs.rpc.identity import COORDINATOR
from libs.rpc.recorder import Recorder
from libs.rpc.server import RpcServer
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.audit.writer import AuditWriter
from libs.runtime.logging import configure_logging
from libs.runtime.private_files import PRIVATE_UMASK
from libs.runtime.settings import load_settings
from services.coordinator.access import AccessRequests
from services.coordinator.adapters.compiler import TorchCompiler
from services.coordinator.adapters.database import Database, open_database
from services.coordinator.adapters.parties import GrpcParties
from services.coordinator.adapters.tables import AUDIT
from services.coordinator.associations import Associations
from services.coordinator.attachments import Attachments
from services.coordinator.catalogue import Catalogue
from services.coordinator.changes import ChangeFeed, ProgressBoard
from services.coordinator.hospital_events import HospitalEvents
from services.coordinator.hospitals import Hospitals
from services.coordinator.journal import Journal
from services.coordinator.models import Models
from services.coordinator.ports import Compiler, PartyAddress
from services.coordinator.releases import Releases
from services.coordinator.rounds import Rounds
from services.coordinator.rpc import CoordinatorService
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.statements import Statements
from services.coordinator.studies import Studies
from services.coordinator.supervisor import Supervisor
from services.coordinator.wire import party_messages

SERVICE = coordinator_pb2.DESCRIPTOR.services_by_name["CoordinatorService"].full_name


@dataclass(frozen=True)
class Coordinator:
    """A coordinator that has been put together; it does nothing before `start`."""

    server: RpcServer
    supervisor: Supervisor
    database: Database
    parties: GrpcParties
    audit: AuditWriter

    async def start(self) -> int:
        """Listen, and go on with the stored studies. The bound port."""
        self.audit.start()
        port = await self.server.start()
        self.supervisor.start()
        return port

    async def stop(self, *, grace_s: float) -> None:
        """Stop serving and let go of everything. Studies stay as they are stored."""
        await self.server.stop(grace_s=grace_s)
        await self.release()

    async def release(self) -> None:
        """Hang up on the parties and close the database, once the server has stopped."""
        await self.parties.close()
        self.database.close()


@dataclass(frozen=True)
class _Parts:
    """What several of the coordinator's parts work with."""

    settings: CoordinatorSettings
    clock: Clock
    compiler: Compiler
    trail: AuditTrail
    database: Database
    parties: GrpcParties
    attachments: Attachments
    catalogue: Catalogue
    associations: Associations
    statements: Statements
    access: AccessRequests
    feed: ChangeFeed
    board: ProgressBoard
    journal: Journal


def build(
    settings: CoordinatorSettings, *, clock: Clock | None = None, compiler: Compiler | None = None
) -> Coordinator:
    """Wire one coordinator and open its database. Raises what `open_database` and the settings raise."""
    recorder = settings.recorder()
    parts = _parts(settings, clock or SystemClock(), compiler or TorchCompiler(), recorder)
    supervisor = _supervisor(parts)
    audit = trail_writer(parts.database.engine, parts.trail, parts.clock)
    server = settings.server(name="coordinator", recorder=recorder, on_refusal=audit.refused)
    service = _service(parts, supervisor)
    server.add(coordinator_pb2_grpc.add_CoordinatorServiceServicer_to_server, service, SERVICE)

    async def end_streams() -> None:
        await supervisor.stop()
        parts.feed.close()
        parts.attachments.close()

    server.on_stop(end_streams)
    serve_trail(server, audit)
    return Coordinator(server, supervisor, parts.database, parts.parties, audit)


def _parts(
    settings: CoordinatorSettings, clock: Clock, compiler: Compiler, recorder: Recorder | None
) -> _Parts:
    trail = own_trail(me=COORDINATOR, tables=AUDIT, tls=settings.tls.files, clock=clock)
    database = open_database(settings.database, trail)
    parties = GrpcParties(
        [PartyAddress(PartyId(p.index), p.address, p.identity) for p in settings.parties],
        cells=settings.cells,
        tls=settings.tls.files,
        call_timeout_s=settings.party_call_timeout_s,
        closing_timeout_s=settings.closing_timeout_s,
        recorder=recorder,
    )
    attachments = Attachments(clock=clock, reattach_grace_s=settings.reattach_grace_s)
    feed = ChangeFeed()
    catalogue = Catalogue(store=database.catalogue, attachments=attachments)
    journal = Journal(repository=database, attachments=attachments, feed=feed)
    statements = Statements(ca=settings.tls.ca, clock=clock)
    return _Parts(
        settings=settings,
        clock=clock,
        compiler=compiler,
        trail=trail,
        database=database,
        parties=parties,
        attachments=attachments,
        catalogue=catalogue,
        associations=Associations(
            store=database.associations,
            catalogue=catalogue,
            attachments=attachments,
            journal=journal,
            clock=clock,
            preapproved=settings.preapproved,
            max_pending=settings.max_pending_associations,
        ),
        statements=statements,
        access=AccessRequests(
            store=database.access_requests,
            catalogue=catalogue,
            attachments=attachments,
            statements=statements,
        ),
        feed=feed,
        board=ProgressBoard(),
        journal=journal,
    )


def _supervisor(parts: _Parts) -> Supervisor:
    settings = parts.settings
    rounds = Rounds(
        journal=parts.journal,
        attachments=parts.attachments,
        parties=parts.parties,
        board=parts.board,
        clock=parts.clock,
        round_deadline_s=settings.round_deadline_s,
        quorum_patience_s=settings.quorum_patience_s,
        max_attempts=settings.max_round_attempts,
    )
    releases = Releases(
        journal=parts.journal,
        repository=parts.database,
        attachments=parts.attachments,
        compiler=parts.compiler,
        clock=parts.clock,
        round_deadline_s=settings.round_deadline_s,
    )
    return Supervisor(
        repository=parts.database,
        journal=parts.journal,
        rounds=rounds,
        releases=releases,
        clock=parts.clock,
        party_patience_s=settings.party_patience_s,
    )


def _service(parts: _Parts, supervisor: Supervisor) -> CoordinatorService:
    return CoordinatorService(
        hospitals=_hospitals(parts),
        associations=parts.associations,
        catalogue=parts.catalogue,
        access=parts.access,
        studies=Studies(
            repository=parts.database,
            journal=parts.journal,
            catalogue=parts.catalogue,
            parties=parts.parties,
            compiler=parts.compiler,
            statements=parts.statements,
            clock=parts.clock,
            watch_interval_s=parts.settings.watch_interval_s,
            on_created=supervisor.supervise,
        ),
        models=Models(
            repository=parts.database,
            parties=parts.parties,
            compiler=parts.compiler,
            clock=parts.clock,
            max_batch=parts.settings.max_batch,
            prediction_deadline_s=parts.settings.prediction_deadline_s,
        ),
        board=parts.board,
        parties=parts.parties.addresses,
    )


def _hospitals(parts: _Parts) -> Hospitals:
    return Hospitals(
        attachments=parts.attachments,
        associations=parts.associations,
        catalogue=parts.catalogue,
        access=parts.access,
        events=HospitalEvents(
            catalogue=parts.catalogue,
            access=parts.access,
            journal=parts.journal,
            board=parts.board,
            attachments=parts.attachments,
            clock=parts.clock,
        ),
        journal=parts.journal,
        welcome=coordinator_pb2.Welcome(parties=party_messages(parts.parties.addresses)),
    )


def main(arguments: list[str]) -> int:
    """Run the coordinator until it is told to stop. The exit status."""
    os.umask(PRIVATE_UMASK)
    if len(arguments) != 2 or arguments[0] != "--config":
        print("usage: python -m services.coordinator --config FILE", file=sys.stderr)
        return 2
    try:
        settings = load_settings(CoordinatorSettings, Path(arguments[1]))
        configure_logging(service="coordinator", level=settings.log_level)
        asyncio.run(_serve(settings))
    except TrefoilError as error:
        print(f"The coordinator did not start. {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: CoordinatorSettings) -> None:
    coordinator = build(settings)
    coordinator.server.stop_on_signals()
    try:
        await coordinator.start()
        await coordinator.server.serve_until_stopped()
    finally:
        await coordinator.release()
