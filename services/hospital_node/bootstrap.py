"""From settings to a running node: everything is made and joined here, and nowhere else."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc

from libs.core.clock import SystemClock
from libs.core.errors import TrefoilError
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.hospital.v1.access_pb2_grpc import add_AccessServiceServicer_to_server
from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import add_AccountServiceServicer_to_server
from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import add_HospitalServiceServicer_to_server
from libs.rpc.audit_service import own_trail, serve_trail, trail_writer
from libs.rpc.channel import open_channel
from libs.rpc.identity import COORDINATOR, Identity, Kind
from libs.runtime.logging import configure_logging
from libs.runtime.private_files import PRIVATE_UMASK
from libs.runtime.settings import load_settings
from services.hospital_node.access.model_counts import PredictionReader
from services.hospital_node.access.model_use import ModelUseTeller
from services.hospital_node.access.rpc import AccessService
from services.hospital_node.access.service import Access
from services.hospital_node.access.statements import StatementReader
from services.hospital_node.account_wiring import node_accounts
from services.hospital_node.accounts.rpc import AccountService
from services.hospital_node.adapters.access_store import SqlAccess
from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.adapters.membership import SqlMembership
from services.hospital_node.adapters.parties import ShareParties
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.adapters.worker_process import WorkerProcess
from services.hospital_node.dataset_rpc import DatasetCalls
from services.hospital_node.datasets import Publisher
from services.hospital_node.dicomweb.archives import Archives
from services.hospital_node.inbox import NodeInbox
from services.hospital_node.link import CoordinatorLink, Outbox
from services.hospital_node.membership import Membership
from services.hospital_node.rpc import HospitalService
from services.hospital_node.settings import HospitalSettings
from services.hospital_node.tasks import TaskRunner
from services.hospital_node.trail_events import link_changed
from services.hospital_node.worker.study_files import forget_others

SERVICE = "trefoil.hospital.v1.HospitalService"
ACCESS_SERVICE = "trefoil.hospital.v1.AccessService"
ACCOUNT_SERVICE = "trefoil.hospital.v1.AccountService"


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
    store, outbox, parties = Database(transactions, trail), Outbox(), ShareParties(dial)
    datasets = DatasetStore(transactions, trail, clock)
    await store.fail_interrupted_tasks()
    archives = Archives(settings.dicomweb, cache=settings.dicomweb_cache)
    archives.clean()
    publisher = Publisher(
        datasets=datasets,
        worker=worker(),
        data_roots=settings.readable_roots,
        clock=clock,
        draw_seed=lambda: secrets.randbits(32),
        archives=archives,
    )
    access_store = SqlAccess(transactions, trail=trail, clock=clock)
    reader = StatementReader(hospital=identity, authorities=tls.ca.read_bytes)
    model_use = ModelUseTeller(store=access_store, parties=parties)
    access = Access(
        store=access_store,
        reader=reader,
        listener=outbox,
        clock=clock,
        model_use_changed=model_use.changed,
    )
    tasks = TaskRunner(
        hospital=settings.name,
        store=store,
        access=access,
        announcer=outbox,
        parties=parties,
        worker=worker(),
        data_roots=settings.readable_roots,
        work_dir=settings.work_dir,
        clock=clock,
    )
    await asyncio.to_thread(forget_others, settings.work_dir, await access.living_studies())

    def name_parties(addresses: Mapping[PartyId, str]) -> None:
        parties.use(addresses)
        model_use.changed()

    link = CoordinatorLink(
        name=settings.name,
        connect=lambda: dial(settings.coordinator.address, COORDINATOR),
        outbox=outbox,
        inbox=NodeInbox(access=access, tasks=tasks, name_parties=name_parties),
        decisions=access.decisions,
        datasets=datasets,
        on_change=lambda attached: audit.submit(link_changed(attached=attached)),
    )
    membership = Membership(
        store=SqlMembership(transactions, trail),
        keep_attached=link.run,
        say_goodbye=link.say_goodbye,
        stop_work=tasks.stop,
    )
    service = HospitalService(
        identity=identity,
        datasets=DatasetCalls(
            datasets=datasets,
            publisher=publisher,
            announcer=outbox,
            consent_changed=tasks.consent_changed,
            clock=clock,
        ),
        attached=lambda: link.attached,
        activity=lambda: tasks.activity,
        consent_changed=tasks.consent_changed,
        membership=membership,
        refusal=lambda: link.refusal,
    )
    access_service = AccessService(access=access, consent_changed=tasks.consent_changed)
    node = node_accounts(settings, transactions=transactions, trail=trail, clock=clock)
    await node.accounts.invitations.ensure_owner_code()
    server = settings.server(
        name=f"hospital-{settings.name}",
        recorder=recorder,
        accounts=node.tokens,
        grants=node.accounts.sessions.grants,
        on_refusal=audit.refused,
    )
    server.add(add_HospitalServiceServicer_to_server, service, SERVICE)
    server.add(add_AccessServiceServicer_to_server, access_service, ACCESS_SERVICE)
    server.add(add_AccountServiceServicer_to_server, AccountService(node.accounts), ACCOUNT_SERVICE)
    serve_trail(server, audit)
    server.stop_on_signals()
    try:
        audit.start()
        await server.start()
        async with asyncio.TaskGroup() as group:
            counts = PredictionReader(store=access_store, parties=parties)
            own = [group.create_task(work) for work in (membership.run(), model_use.run(), counts.run())]
            await server.serve_until_stopped()
            for task in own:
                task.cancel()
    finally:
        await tasks.stop()
        await parties.close()
        node.close()
        transactions.close()
