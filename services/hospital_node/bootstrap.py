"""From settings to a running node: everything is made and joined here, and nowhere else."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import grpc

from libs.core.clock import SystemClock
from libs.core.errors import TrefoilError
from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import add_HospitalServiceServicer_to_server
from libs.rpc.audit_service import own_trail, serve_trail, trail_writer
from libs.rpc.channel import open_channel
from libs.rpc.identity import COORDINATOR, Identity, Kind
from libs.runtime.logging import configure_logging
from libs.runtime.private_files import PRIVATE_UMASK
from libs.runtime.settings import load_settings
from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.parties import ShareParties
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.adapters.worker_process import WorkerProcess
from services.hospital_node.datasets import Publisher
from services.hospital_node.inbox import NodeInbox
from services.hospital_node.link import CoordinatorLink, Outbox
from services.hospital_node.proposals import Proposals
from services.hospital_node.rpc import HospitalService
from services.hospital_node.settings import HospitalSettings
from services.hospital_node.tasks import TaskRunner

SERVICE = "trefoil.hospital.v1.HospitalService"


def main() -> None:
    """Run a node until SIGTERM or SIGINT."""
    os.umask(PRIVATE_UMASK)
    parser = argparse.ArgumentParser(description="A hospital's node.")
    parser.add_argument("--config", type=Path, required=True, help="its settings, a TOML file")
    try:
        settings = load_settings(HospitalSettings, parser.parse_args().config)
        configure_logging(service=f"hospital-{settings.name}", level=settings.log_level)
        asyncio.run(run(settings))
    except TrefoilError as error:
        sys.exit(str(error))


async def run(settings: HospitalSettings) -> None:
    """Serve and stay attached until stopped."""
    identity, clock, recorder = Identity(Kind.HOSPITAL, settings.name), SystemClock(), settings.recorder()
    tls = settings.tls.files

    def dial(address: str, server: Identity) -> grpc.aio.Channel:
        return open_channel(
            address=address, server=server, tls=tls, token_file=settings.worker_token, recorder=recorder
        )

    def worker() -> WorkerProcess:
        return WorkerProcess(
            threads=settings.train_threads, work_dir=settings.work_dir, log_level=settings.log_level
        )

    transactions = Transactions(settings.database)
    trail = own_trail(me=identity, tables=AUDIT, tls=tls, clock=clock)
    audit = trail_writer(transactions.engine, trail, clock)
    store, outbox, parties = Database(transactions), Outbox(), ShareParties(dial)
    await store.fail_interrupted_tasks()
    publisher = Publisher(
        store=store, announcer=outbox, worker=worker(), data_roots=settings.data_roots, clock=clock
    )
    proposals = Proposals(store=store, announcer=outbox)
    tasks = TaskRunner(
        hospital=settings.name,
        store=store,
        proposals=proposals,
        announcer=outbox,
        parties=parties,
        worker=worker(),
        data_roots=settings.data_roots,
        clock=clock,
    )
    link = CoordinatorLink(
        name=settings.name,
        connect=lambda: dial(settings.coordinator.address, COORDINATOR),
        outbox=outbox,
        inbox=NodeInbox(proposals=proposals, tasks=tasks, name_parties=parties.use),
        store=store,
        clock=clock,
    )
    service = HospitalService(
        identity=identity,
        store=store,
        publisher=publisher,
        proposals=proposals,
        attached=lambda: link.attached,
        activity=lambda: tasks.activity,
        consent_changed=tasks.consent_changed,
    )
    server = settings.server(name=f"hospital-{settings.name}", recorder=recorder, on_refusal=audit.refused)
    server.add(add_HospitalServiceServicer_to_server, service, SERVICE)
    serve_trail(server, audit)
    server.stop_on_signals()
    try:
        audit.start()
        await server.start()
        async with asyncio.TaskGroup() as group:
            attached = group.create_task(link.run())
            await server.serve_until_stopped()
            attached.cancel()
    finally:
        await tasks.stop()
        await parties.close()
        transactions.close()
