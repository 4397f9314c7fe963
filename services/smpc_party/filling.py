"""Fills the pool in the background: this party deals for its own shelves and helps the others with theirs.

A shelf's dealer watches its level. Below the low watermark it deals, one piece after another, up to the high
one. It proposes each piece to its peers under a fresh id, and they join as for a prediction, with the hash
of the terms first: no coordinator is asked, and none can make the parties waste work.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass

from libs.core.errors import FailedPrecondition, NotFound, TrefoilError, Unavailable
from libs.core.ids import PartyId, new_id
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.peer_link import PeerLink
from libs.runtime.logging import get_logger
from services.smpc_party.dealing import Dealing
from services.smpc_party.domain import check_model_id, check_plain_id
from services.smpc_party.masked_models import ModelShare
from services.smpc_party.material import Shelf, session_budget
from services.smpc_party.models import EvaluableModels
from services.smpc_party.pool import MAX_LEVEL, Pool
from services.smpc_party.ports import Peers
from services.smpc_party.settings import PoolSettings

log = get_logger(__name__)

LOOK_S = 5.0
"""How often models that became ready are noticed when nobody asks."""

GIVE_WAY_S = 2.0
"""How long predictions in progress hold back the next piece: the pool must fill under steady load, too."""

FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
PIECE_DEADLINE_S = 300.0
JOIN_TIMEOUT_S = 10.0
FOLLOWED_AT_ONCE = 2
MAX_SHELVES = 64
"""Shelves that are filled: the ones asked for last."""


@dataclass(frozen=True)
class _Wanted:
    model_id: str
    batch: int


class Filler:
    """Use `start` once the peers are being dialled, `stop` before they are hung up."""

    def __init__(
        self,
        *,
        me: PartyId,
        models: EvaluableModels,
        pool: Pool,
        dealing: Dealing,
        peers: Peers,
        executor: Executor,
        settings: PoolSettings,
    ) -> None:
        self._me, self._models, self._pool, self._dealing = me, models, pool, dealing
        self._peers, self._executor, self._settings = peers, executor, settings
        self._wanted: OrderedDict[_Wanted, None] = OrderedDict()
        self._filling: set[_Wanted] = set()
        self._wake, self._quiet = asyncio.Event(), asyncio.Event()
        self._running = 0
        self._quiet.set()
        self._following: dict[str, tuple[PartyId, asyncio.Task[None]]] = {}
        self._loop: asyncio.Task[None] | None = None
        pool.on_taken = lambda _shelf: self._wake.set()

    def start(self) -> None:
        """Fill from now on, unless the settings say that there is no pool."""
        for shelf in self._pool.shelves():
            self._want(shelf.model_id, shelf.batch)
        if self._settings.high_watermark:
            self._loop = asyncio.create_task(self._fill())

    async def stop(self) -> None:
        """Give up what is being made."""
        tasks = [task for _, task in self._following.values()]
        tasks += [self._loop] if self._loop is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """While a prediction runs here, no new piece is begun, for a while."""
        self._running += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()

    def asked(self, model_id: str, batch: int) -> None:
        """Somebody asked this model about so many images: there may be more of that."""
        if self._settings.high_watermark:
            self._want(model_id, batch)
            self._wake.set()

    # ---------------------------------------------------------------- as the dealer

    def _want(self, model_id: str, batch: int) -> None:
        wanted = _Wanted(model_id, batch)
        self._wanted[wanted] = None
        self._wanted.move_to_end(wanted)
        while len(self._wanted) > MAX_SHELVES:
            self._wanted.popitem(last=False)

    async def _fill(self) -> None:
        retry_s = FIRST_RETRY_S
        seen: set[str] = set()
        while True:
            for model_id in await asyncio.to_thread(self._models.ids):
                if model_id not in seen:
                    seen.add(model_id)
                    for batch in self._settings.batches:
                        self._want(model_id, batch)
            wanted = self._lowest()
            if wanted is None:
                self._wake.clear()
                await _wait(self._wake, LOOK_S)
                continue
            await _wait(self._quiet, GIVE_WAY_S)
            try:
                await self._make(wanted)
                retry_s = FIRST_RETRY_S
            except TrefoilError as error:
                log.warning("material_not_made", model=wanted.model_id, code=error.code, reason=str(error))
                if isinstance(error, (NotFound, FailedPrecondition)) and not isinstance(error, Unavailable):
                    self._wanted.pop(wanted, None)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
            except Exception:
                log.exception("filling_crashed", model=wanted.model_id)
                await asyncio.sleep(LAST_RETRY_S)

    def _lowest(self) -> _Wanted | None:
        """The emptiest shelf that is being filled, the one asked for last if there are several."""
        low, high = self._settings.low_watermark, self._settings.high_watermark
        levels = {}
        for wanted in self._wanted:
            level = self._pool.level(self._shelf(wanted))
            if level >= high:
                self._filling.discard(wanted)
            elif level < low:
                self._filling.add(wanted)
            if wanted in self._filling:
                levels[wanted] = level
        return min(reversed(levels), key=lambda wanted: levels[wanted], default=None)

    def _shelf(self, wanted: _Wanted) -> Shelf:
        return Shelf.of_dealer(self._me, model_id=wanted.model_id, batch=wanted.batch)

    async def _make(self, wanted: _Wanted) -> None:
        _, model = await self._models.get(wanted.model_id)
        piece_id = new_id("deal")
        await self._peers.propose(piece_id, model_id=wanted.model_id, batch=wanted.batch)
        await self._piece(piece_id, self._shelf(wanted), model)

    # ---------------------------------------------------------------- as an evaluator

    def follow(self, link: PeerLink, proposal: party_pb2.PeerProposal) -> None:
        """A peer, as dealer, proposes a piece: take part, or refuse at once."""
        piece_id = proposal.computation_id
        try:
            check_plain_id(piece_id, what="computation")
            check_model_id(proposal.model_id)
            self._admit(link.peer, proposal)
        except TrefoilError as error:
            link.refuse(piece_id, error.code)
            return
        shelf = Shelf.of_dealer(link.peer, model_id=proposal.model_id, batch=proposal.batch)
        task = asyncio.create_task(self._help(link, piece_id, shelf))
        self._following[piece_id] = (link.peer, task)
        task.add_done_callback(lambda _: self._following.pop(piece_id, None))

    def _admit(self, dealer: PartyId, proposal: party_pb2.PeerProposal) -> None:
        shelf = Shelf.of_dealer(dealer, model_id=proposal.model_id, batch=proposal.batch)
        running = sum(peer == dealer for peer, _ in self._following.values())
        if proposal.computation_id in self._following or running >= FOLLOWED_AT_ONCE:
            raise Unavailable("This party is making as many pieces with that dealer as it can.")
        if not 1 <= proposal.batch <= self._models.max_batch:
            raise FailedPrecondition("This party does not take so many images at a time.")
        if self._pool.level(shelf) >= MAX_LEVEL:
            raise Unavailable("This party's shelf is full.")

    async def _help(self, link: PeerLink, piece_id: str, shelf: Shelf) -> None:
        try:
            _, model = await self._models.get(shelf.model_id)
        except TrefoilError as error:
            link.refuse(piece_id, error.code)
            return
        await _wait(self._quiet, GIVE_WAY_S)  # the dealer is done with a prediction long before we are
        try:
            await self._piece(piece_id, shelf, model)
        except TrefoilError as error:
            log.warning("material_not_made", model=shelf.model_id, code=error.code, reason=str(error))
        except Exception:
            log.exception("making_material_crashed", model=shelf.model_id)

    async def _piece(self, piece_id: str, shelf: Shelf, model: ModelShare) -> None:
        """This party's part of one piece, from joining to the shelf."""
        budget = session_budget(self._me, shelf.roles, model.plan, batch=shelf.batch, online=False)
        try:
            async with (
                asyncio.timeout(PIECE_DEADLINE_S),
                await self._peers.session(piece_id, max_bytes=budget) as session,
            ):
                await session.join(shelf.terms(model.plan.hash), timeout_s=JOIN_TIMEOUT_S)
                await self._pool.synchronise(session, shelf)
                dealt = await self._dealing.make(
                    session, session.masks(), shelf, model, self._executor, waited_for=False
                )
                if shelf.roles.dealer != self._me:
                    await self._pool.keep(piece_id, shelf, dealt)
                await self._pool.confirm(session, shelf)
                if shelf.roles.dealer == self._me:
                    await self._pool.keep(piece_id, shelf, dealt)
        except TimeoutError:
            raise Unavailable(f"A piece of material was not made within {PIECE_DEADLINE_S:g} s.") from None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event, or so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
