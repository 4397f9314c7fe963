"""One computation of the three parties, as one of them takes part in it over its two peer links.

A session begins with one message to and from each peer: the hash of the terms (what is computed, on
what, in which roles). That message proves two things before any mask is drawn: the parties were told
the same, so no coordinator can give two parties one role; and they mean the same two streams, hence
the same keys. No other message is sent to a peer that has not yet joined.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from libs.core.errors import Bug, DeadlineExceeded, FailedPrecondition, PeerViolation, TrefoilError
from libs.core.ids import PartyId
from libs.mpc.prg import MaskSource
from libs.mpc.program import ArraySpec, Message
from libs.rpc.peer_link import MAX_ID_LENGTH, Lane, PeerLink

T = TypeVar("T")

_JOIN = "join"
_TERMS = {"terms": ArraySpec(np.dtype(np.uint8), (32,))}
_TERMS_BYTES = 32


class Session:
    """Use as `async with Session(...)`; leaving it with an error tells the peers at once.

    Raises `FailedPrecondition` when the id was used before, `Unavailable` when a link is down.
    """

    def __init__(
        self, computation_id: str, links: Mapping[PartyId, PeerLink], *, max_bytes: Mapping[PartyId, int]
    ) -> None:
        """`max_bytes`: how much each peer may send in all; beyond it the computation is aborted."""
        if not 0 < len(computation_id) <= MAX_ID_LENGTH:
            raise FailedPrecondition(f"A computation id has 1 to {MAX_ID_LENGTH} characters.")
        self.computation_id = computation_id
        self.rounds = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self._links = links
        self._max_bytes = max_bytes
        self._lanes: dict[PartyId, Lane] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        try:
            for peer, link in self._links.items():
                self._lanes[peer] = link.open_lane(
                    self.computation_id,
                    max_bytes=self._max_bytes[peer] + _TERMS_BYTES,
                    on_failure=self._fail,
                )
        except TrefoilError as error:
            self._end(error.code)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._end(error.code if isinstance(error, TrefoilError) else "aborted")
            return
        unread = self._unread()
        self._end(None if unread is None else unread.code)
        if unread is not None:
            raise unread

    async def join(self, terms: bytes, *, timeout_s: float) -> None:
        """Wait until both peers take part under the same terms.

        Raises `FailedPrecondition` when they were told other terms, `DeadlineExceeded` when one does not
        turn up.
        """
        mine = np.frombuffer(hashlib.sha256(terms).digest(), dtype=np.uint8)
        for lane in self._lanes.values():
            await lane.send(_JOIN, {"terms": mine})
        for peer, lane in self._lanes.items():
            try:
                message = await asyncio.wait_for(lane.receive(_JOIN, _TERMS), timeout_s)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"Party {peer} did not join computation {self.computation_id} within {timeout_s:g} s. "
                    "Ask again."
                ) from None
            if message["terms"].tobytes() != mine.tobytes():
                raise FailedPrecondition(
                    f"Party {peer} was told other terms for computation {self.computation_id}. "
                    "Nothing was computed; tell the study's operator."
                )

    def masks(self) -> dict[PartyId, MaskSource]:
        """The masks shared with each peer. Raises `MaskReuse` at a second call."""
        return {peer: link.key.for_computation(self.computation_id) for peer, link in self._links.items()}

    def release(self, peer: PartyId) -> None:
        """Go on without this peer: its part is over, and losing it no longer ends the computation.

        Raises `PeerViolation` when it sent more than it had to.
        """
        unread = self._unread()
        if unread is not None:
            raise unread
        self._lane(peer)
        del self._lanes[peer]
        self._links[peer].end_lane(self.computation_id, abort_code=None)

    async def send(self, receiver: PartyId, label: str, message: Message) -> None:
        """Send one message to one peer."""
        self.sent_bytes += await self._lane(receiver).send(label, message)

    async def receive(self, sender: PartyId, label: str, specs: Mapping[str, ArraySpec]) -> Message:
        """The peer's next message, checked against `specs`."""
        message = await self._lane(sender).receive(label, specs)
        self.received_bytes += sum(array.nbytes for array in message.values())
        return message

    async def guard(self, awaitable: Awaitable[T]) -> T:
        """The result of `awaitable`, or this session's failure if that comes first."""
        task: asyncio.Future[T] = asyncio.ensure_future(awaitable)
        either: list[asyncio.Future[Any]] = [task, self._failure]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            return task.result()
        finally:
            if not task.done():
                task.cancel()

    def _lane(self, peer: PartyId) -> Lane:
        try:
            return self._lanes[peer]
        except KeyError:
            raise Bug(f"There is no lane to party {peer}.") from None

    def _unread(self) -> PeerViolation | None:
        """A message that nobody awaited means that the peer ran something else than we did."""
        for peer, lane in self._lanes.items():
            if lane.left_over is not None:
                rule = f"sent {lane.left_over}, which was not due"
                return PeerViolation(computation=self.computation_id, sender=int(peer), rule=rule)
        return None

    def _fail(self, error: TrefoilError) -> None:
        """One lane failed: so does the session, and nobody waits for the other lane any longer."""
        if self._failure.done():
            return
        self._failure.set_exception(error)
        self._failure.exception()  # retrieved; nobody may be waiting
        for lane in self._lanes.values():
            lane.fail(error)

    def _end(self, abort_code: str | None) -> None:
        for peer in self._lanes:
            self._links[peer].end_lane(self.computation_id, abort_code=abort_code)
