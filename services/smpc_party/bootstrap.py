"""Puts one party together and runs it. Nothing but wiring."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from libs.core.clock import SystemClock
from libs.core.errors import TrefoilError
from libs.core.ids import PartyId
from libs.core.secret import Secret
from libs.mpc.kernels.warm_up import warm_up
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.audit_service import own_trail, serve_trail, trail_writer
from libs.rpc.identity import Identity, party_identity
from libs.rpc.server import RpcServer
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.logging import configure_logging, get_logger
from libs.runtime.memory import share_arenas
from libs.runtime.private_files import PRIVATE_UMASK
from libs.runtime.settings import load_settings
from services.smpc_party.adapters.home import GrpcHome
from services.smpc_party.adapters.index import AUDIT, Index
from services.smpc_party.adapters.pool_index import PoolIndex
from services.smpc_party.adapters.sealed_folder import SealedFolder
from services.smpc_party.adapters.share_store import ShareStore, read_storage_key
from services.smpc_party.adapters.use_index import UseIndex
from services.smpc_party.aggregation import Aggregator
from services.smpc_party.dealing import Dealing
from services.smpc_party.filling import Filler
from services.smpc_party.limits import PredictionLimits
from services.smpc_party.masked_models import MaskedModels
from services.smpc_party.models import EvaluableModels
from services.smpc_party.peers import PeerAddress, PeerNetwork, PeerService
from services.smpc_party.pool import Pool
from services.smpc_party.predictions import Predictions
from services.smpc_party.rpc import PartyService
from services.smpc_party.settings import PartySettings
from services.smpc_party.uploads import ShareDesk
from services.smpc_party.uses import ModelUses, Uses, UsesAtHome

log = get_logger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""The event loop waits this long for a computing thread to let go of the interpreter, not 5 ms."""


AHEAD_NICENESS = 10
"""On Linux a thread has a priority of its own."""


class Party:
    """One running party; `await start(settings)` gives one."""

    def __init__(self, settings: PartySettings) -> None:
        me = PartyId(settings.index)
        recorder = settings.recorder()
        key = read_storage_key(settings.storage_key)
        clock = SystemClock()
        trail = own_trail(me=party_identity(me), tables=AUDIT, tls=settings.tls.files, clock=clock)
        self._index, self._shares = _open_store(settings, key, trail)
        self._audit = trail_writer(self._index.engine, trail, clock)
        self._piece_index = PoolIndex(settings.store / "pool.db")
        blobs = SealedFolder(settings.store / "material", key, max_bytes=settings.pool.max_bytes)
        self.network = PeerNetwork(
            me=me,
            cell=settings.cell,
            peers={
                PartyId(p.index): PeerAddress(p.address, Identity.parse(p.identity)) for p in settings.peers
            },
            tls=settings.tls.files,
            recorder=recorder,
        )
        self._online = ThreadPoolExecutor(2, thread_name_prefix="online")
        self._offline = ThreadPoolExecutor(2, thread_name_prefix="offline")
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead", initializer=_give_way)
        # One of its own: rounds must close however many predictions are asked for.
        self._closing = ThreadPoolExecutor(1, thread_name_prefix="closing")
        limits = PredictionLimits(settings.max_prediction_bytes, settings.max_predictions_per_client)
        self._aggregator = Aggregator(
            me=me,
            rounds=self._index,
            shares=self._shares,
            peers=self.network,
            executor=self._closing,
            close_deadline_s=settings.close_deadline_s,
        )
        self._masked_models = MaskedModels(
            me=me,
            shares=self._shares,
            peers=self.network,
            blobs=blobs,
            executor=self._offline,
            device=settings.device,
        )
        self._home = None
        if settings.home is not None:
            self._home = GrpcHome(settings.home, me=me, tls=settings.tls.files, recorder=recorder)
        models = EvaluableModels(self._index, self._shares, home=self._home, max_batch=settings.max_batch)
        self._model_uses = ModelUses(store=UseIndex(self._index.engine, trail), clock=clock)
        uses: Uses = self._model_uses if self._home is None else UsesAtHome(self._home)
        dealing = Dealing(me=me, masked_models=self._masked_models, comparison=settings.fixed_comparison)
        self._pool = Pool(
            me=me,
            index=self._piece_index,
            blobs=blobs,
            masked_models=self._masked_models,
            clock=clock,
            executor=self._online,
            memory_bytes=settings.pool.memory_bytes,
        )
        self._pool.open()
        self._filler = Filler(
            me=me,
            models=models,
            pool=self._pool,
            dealing=dealing,
            peers=self.network,
            executor=self._ahead,
            settings=settings.pool,
        )
        self.network.on_proposal = self._filler.follow
        self._predictions = Predictions(
            me=me,
            models=models,
            uses=uses,
            pool=self._pool,
            filler=self._filler,
            dealing=dealing,
            peers=self.network,
            online=self._online,
            offline=self._offline,
            max_batch=settings.max_batch,
            limits=limits,
            deadline_s=settings.prediction_deadline_s,
            audit=self._audit,
        )
        self.server: RpcServer = settings.server(
            name=f"party-{me}", recorder=recorder, on_refusal=self._audit.refused
        )
        self._desk = ShareDesk(
            rounds=self._index, shares=self._shares, ttl_s=settings.unfinished_upload_kept_s
        )
        service = PartyService(
            rounds=self._index,
            desk=self._desk,
            aggregator=self._aggregator,
            predictions=self._predictions,
            uses=uses,
            pool=self._pool,
            limits=limits,
        )
        names = party_pb2.DESCRIPTOR.services_by_name
        self.server.add(
            party_pb2_grpc.add_PartyServiceServicer_to_server, service, names["PartyService"].full_name
        )
        self.server.add(
            party_pb2_grpc.add_PeerServiceServicer_to_server,
            PeerService(self.network, models=models, shares=self._shares, uses=uses),
            names["PeerService"].full_name,
        )
        serve_trail(self.server, self._audit)
        self.server.on_stop(self._close)
        self.server.after_stop(self._close_index)

    async def start(self) -> int:
        """Serve and dial; the bound port."""
        self._audit.start()
        self._desk.start()
        port = await self.server.start()
        self.network.start()
        self._filler.start()
        self._model_uses.start()
        return port

    async def _close(self) -> None:
        """Abort what runs, so that peers and clients are told at once."""
        await self._filler.stop()
        await self._desk.stop()
        await self._predictions.stop()
        await self._model_uses.stop()
        await self._aggregator.stop()
        await self._masked_models.stop()
        await self.network.stop()
        if self._home is not None:
            await self._home.close()
        self._online.shutdown(wait=False, cancel_futures=True)
        self._offline.shutdown(wait=False, cancel_futures=True)
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._piece_index.close()
        self._closing.shutdown(wait=False, cancel_futures=True)

    async def _close_index(self) -> None:
        """After the audit trail in it is signed."""
        self._index.close()


def _give_way() -> None:
    """What is made ahead takes the processor time that nobody waits for."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), AHEAD_NICENESS)


def _open_store(settings: PartySettings, key: Secret[bytes], trail: AuditTrail) -> tuple[Index, ShareStore]:
    shares = ShareStore(settings.store, key, quota_bytes=settings.quota_bytes)
    index = Index(settings.store / "index.db", trail)
    orphans = shares.clean(index.share_names())
    if orphans:
        log.warning("orphans_deleted", count=orphans)
    return index, shares


async def serve(config: Path) -> None:
    """Run one party until it is told to stop."""
    settings = load_settings(PartySettings, config)
    settings.device.check()
    configure_logging(service=f"party-{settings.index}", level=settings.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Before the port opens: the first prediction must not wait for a compiler.
    await asyncio.to_thread(warm_up)
    party = Party(settings)
    party.server.stop_on_signals()
    await party.start()
    await party.server.serve_until_stopped()


def main(arguments: Sequence[str]) -> int:
    """`--config FILE`; the exit status. An error in the settings or keys is told in one line."""
    os.umask(PRIVATE_UMASK)
    share_arenas()
    parser = argparse.ArgumentParser(prog="smpc_party", description="One of Trefoil's three compute parties.")
    parser.add_argument("--config", type=Path, required=True, help="settings file (TOML)")
    try:
        asyncio.run(serve(parser.parse_args(arguments).config))
    except TrefoilError as error:
        sys.stderr.write(f"smpc_party: {error}\n")
        return 1
    return 0
