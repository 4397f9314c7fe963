"""The links to the two other parties: who dials, who answers, and what happens when one breaks.

Of two parties the one with the lower index dials, and dials again for as long as it runs. Each stream
gets a fresh key. A new stream from a peer replaces the old one, which may be dead without our knowing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from libs.core.errors import PermissionDenied, TrefoilError, Unavailable
from libs.core.ids import PARTIES, PartyId
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.arrays import chunks_of, sha256_of
from libs.rpc.caller import current_caller
from libs.rpc.channel import open_channel, translate
from libs.rpc.computation import Session
from libs.rpc.identity import Identity, TlsFiles, party_identity
from libs.rpc.link_gauge import LinkGauge, LinkQuality
from libs.rpc.peer_link import PeerLink
from libs.rpc.recorder import Recorder
from libs.runtime.logging import get_logger
from services.smpc_party.models import EvaluableModels
from services.smpc_party.ports import Shares
from services.smpc_party.uses import Uses

log = get_logger(__name__)

LINK_WAIT_S = 5.0
"""How long a computation waits for a link that is down: about as long as a peer takes to restart."""

FIRST_GAUGE_S, LAST_GAUGE_S = 0.5, 30.0
"""Often at first: while services start, a machine is busy and its links seem slow."""

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 3.0


@dataclass(frozen=True)
class PeerAddress:
    """Where a peer listens and who it must prove to be."""

    address: str
    identity: Identity


class PeerNetwork:
    """This party's links. `start` dials; `PeerService` hands in the streams that others dialled."""

    def __init__(
        self,
        *,
        me: PartyId,
        cell: int,
        peers: Mapping[PartyId, PeerAddress],
        tls: TlsFiles,
        recorder: Recorder | None,
    ) -> None:
        self.me, self._cell = me, cell
        self._peers, self._tls, self._recorder = peers, tls, recorder
        self._links: dict[PartyId, PeerLink] = {}
        self._adopted = asyncio.Event()
        self._dialling: list[asyncio.Task[None]] = []
        self._qualities: dict[PartyId, LinkQuality] = {}
        self._gauging: dict[PartyId, asyncio.Task[None]] = {}
        self.on_proposal: Callable[[PeerLink, party_pb2.PeerProposal], None] | None = None
        """Who is asked when a peer proposes a computation. Set before `start`; unset: all are refused."""

    def start(self) -> None:
        """Dial every peer with a higher index, again and again until `stop`."""
        for peer, address in self._peers.items():
            if peer > self.me:
                self._dialling.append(asyncio.create_task(self._keep_dialling(peer, address)))

    async def stop(self) -> None:
        """Close every link; computations in progress are aborted."""
        tasks = [*self._dialling, *self._gauging.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self._links.values():
            link.close()

    def quality(self, peer: PartyId) -> LinkQuality | None:
        """What was measured of the link to this peer; None before the first time."""
        return self._qualities.get(peer)

    async def propose(self, computation_id: str, *, model_id: str, batch: int) -> None:
        """Ask both peers to take part in dealing material. Raises `Unavailable` when a link is down."""
        proposal = party_pb2.PeerProposal(computation_id=computation_id, model_id=model_id, batch=batch)
        for peer in self._peers:
            link = self._live(peer)
            if link is None:
                raise Unavailable(f"Party {self.me} has no link to party {peer} right now.")
            await link.propose(proposal)

    async def session(self, computation_id: str, *, max_bytes: Mapping[PartyId, int]) -> Session:
        """A session over the links as they are now; `max_bytes` is what each peer may send.

        Raises `Unavailable` when a link stays down for `LINK_WAIT_S`.
        """
        try:
            async with asyncio.timeout(LINK_WAIT_S):
                links = {peer: await self._wait_for(peer) for peer in self._peers}
        except TimeoutError:
            missing = [int(peer) for peer in self._peers if self._live(peer) is None]
            raise Unavailable(
                f"Party {self.me} has no link to party {' and '.join(map(str, missing)) or '?'} right now. "
                "Ask again in a moment; if it lasts, tell that party's operator."
            ) from None
        return Session(computation_id, links, max_bytes=max_bytes)

    def new_link(self, peer: PartyId) -> PeerLink:
        """This party's end of a stream that has just begun."""
        return PeerLink(
            me=self.me, peer=peer, cell=self._cell, on_established=self._adopt, on_proposal=self.on_proposal
        )

    def accepts(self, peer: PartyId) -> bool:
        """Whether `peer` is one that dials us."""
        return peer in self._peers and peer < self.me

    def _adopt(self, link: PeerLink) -> None:
        old = self._links.get(link.peer)
        self._links[link.peer] = link
        if old is not None:
            old.close()
        self._adopted.set()
        if (task := self._gauging.get(link.peer)) is not None:
            task.cancel()
        self._gauging[link.peer] = asyncio.create_task(self._gauge(link))
        log.info("peer_link_established", peer=int(link.peer))

    async def _gauge(self, link: PeerLink) -> None:
        """Measure the link now and then, for as long as it lasts."""
        gauge, pause_s = LinkGauge(link.ping), FIRST_GAUGE_S
        with suppress(Unavailable):
            while True:
                self._qualities[link.peer] = await gauge.measure()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LAST_GAUGE_S)

    def _live(self, peer: PartyId) -> PeerLink | None:
        link = self._links.get(peer)
        return link if link is not None and not link.closed else None

    async def _wait_for(self, peer: PartyId) -> PeerLink:
        while (link := self._live(peer)) is None:
            self._adopted.clear()
            await self._adopted.wait()
        return link

    async def _keep_dialling(self, peer: PartyId, address: PeerAddress) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            link = self.new_link(peer)
            failure = await self._dial(link, address)
            connected = self._links.get(peer) is link
            if connected or retry_s == FIRST_RETRY_S:  # an outage is logged once
                log.warning("peer_link_lost", peer=int(peer), connected=connected, reason=failure)
            retry_s = FIRST_RETRY_S if connected else min(2 * retry_s, LAST_RETRY_S)
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries only

    async def _dial(self, link: PeerLink, address: PeerAddress) -> str:
        """One stream from its hello to its end; why it ended.

        Each on a channel of its own: an old channel would wait out its own backoff first, and would go on
        with certificates that were replaced in the meantime. While they are being replaced a file may be
        missing or half written: whatever goes wrong costs this stream, never the dialling.
        """
        try:
            async with open_channel(
                address=address.address, server=address.identity, tls=self._tls, recorder=self._recorder
            ) as channel:
                stream: Any = party_pb2_grpc.PeerServiceStub(channel).Exchange(link.outgoing())
                try:
                    await link.read(aiter(stream))
                finally:
                    stream.cancel()
        except grpc.aio.AioRpcError as error:
            return str(translate(error))
        except TrefoilError as error:
            return str(error)
        except Exception as error:
            log.exception("peer_link_broke", peer=int(link.peer))
            return type(error).__name__
        return "the peer ended the stream"


class PeerService(party_pb2_grpc.PeerServiceServicer):
    """The answering end of the peer links."""

    def __init__(self, network: PeerNetwork, *, models: EvaluableModels, shares: Shares, uses: Uses) -> None:
        self._network, self._models, self._shares, self._uses = network, models, shares, uses

    async def Exchange(  # noqa: N802 - the proto's name
        self, request_iterator: AsyncIterator[party_pb2.PeerFrame], context: Any
    ) -> AsyncIterator[party_pb2.PeerFrame]:
        """One stream, for as long as it lasts. The certificate says whose it is."""
        link = self._network.new_link(self._dialler())
        reading = asyncio.create_task(link.read(aiter(request_iterator)))
        try:
            async for frame in link.outgoing():
                yield frame
            await reading  # the link has closed: this raises what closed it
        finally:
            link.close()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            log.info("peer_link_ended", peer=int(link.peer))

    async def FetchModel(  # noqa: N802 - the proto's name
        self, request: party_pb2.FetchModelRequest, context: Any
    ) -> AsyncIterator[party_pb2.FetchModelResponse]:
        """A model's share, for another replica of this very party and for nobody else."""
        self._require_this_party()
        record = await asyncio.to_thread(self._models.record, request.model_id)
        model = self._models.share_of(record)
        await asyncio.to_thread(self._models.handed_out, request.model_id)
        share = await asyncio.to_thread(self._shares.load, model.share)
        ring = model.plan.ring
        header = party_pb2.ModelHeader(
            spec=record.spec.to_json().encode(),
            upload_id=record.upload_id or "",
            sha256=await asyncio.to_thread(sha256_of, share, ring),
        )
        yield party_pb2.FetchModelResponse(header=header)
        for chunk in chunks_of(share, ring):
            yield party_pb2.FetchModelResponse(chunk=chunk)

    async def UseModel(  # noqa: N802 - the proto's name
        self, request: party_pb2.UseModelRequest, context: Any
    ) -> party_pb2.UseModelResponse:
        """May somebody ask a model, and if so it is counted; for another replica of this very party."""
        self._require_this_party()
        asker = Identity.parse(request.asker_identity)
        record = await asyncio.to_thread(self._models.record, request.model_id)
        if not request.images:
            await self._uses.check(record.spec, asker)
            return party_pb2.UseModelResponse()
        limited = await self._uses.charge(record.spec, asker, images=request.images)
        return party_pb2.UseModelResponse(limited=limited)

    def _require_this_party(self) -> None:
        identity = current_caller().identity
        if identity != party_identity(self._network.me):
            raise PermissionDenied(
                f"{identity} is another party; shares and counts are for replicas of this one."
            )

    def _dialler(self) -> PartyId:
        identity = current_caller().identity
        for party in PARTIES:
            if identity == party_identity(party) and self._network.accepts(party):
                return party
        raise PermissionDenied(
            f"{identity} does not dial party {self._network.me}: of two parties the one with the lower index "
            "dials the other. Check the peers in both settings files."
        )
