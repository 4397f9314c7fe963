"""One stream between two parties: hello, key agreement, and lanes for the computations over it.

Every computation belongs to the streams it began on. Its messages wait in lanes *of the stream*, and
its masks come from the key of the stream, so a reconnect can neither mix messages of two streams nor
draw masks from two keys: the computation ends with the stream, and a new one gets fresh keys.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping

from libs.core.errors import (
    FailedPrecondition,
    InvalidInput,
    PeerViolation,
    TrefoilError,
    Unavailable,
)
from libs.core.ids import PartyId
from libs.mpc.prg import PairKey, agree_pair_key, new_private_key
from libs.mpc.program import ArraySpec, Message, check_message
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.peer_frames import Assembler, FrameError, Received, encode_message

HELLO_TIMEOUT_S = 10.0
MAX_ID_LENGTH = 128
OUTBOX_BYTES = 8 << 20
"""A sender waits while more than this is queued on a stream."""

EARLY_COMPUTATIONS = 256
EARLY_BYTES = 4096
"""What is kept for computations that a peer began before us: one first message each, this long at most."""

MAX_PING_BYTES = 1 << 20
MAX_QUEUED_PONGS = 1000

ENDED_COMPUTATIONS = 10_000
"""Late frames of this many past computations are dropped in silence; of older ones they are answered."""


class PeerLink:
    """This party's end of one stream. `outgoing` feeds the stream, `read` consumes it."""

    def __init__(
        self,
        *,
        me: PartyId,
        peer: PartyId,
        cell: int = 0,
        on_established: Callable[[PeerLink], None] = lambda _link: None,
        on_proposal: Callable[[PeerLink, party_pb2.PeerProposal], None] | None = None,
    ) -> None:
        """`on_established` is called once, when the peer has said hello and the key is agreed.

        `on_proposal` is called for each computation that the peer proposes; without it all are refused.
        """
        self.me, self.peer, self.cell = me, peer, cell
        self.closed = False
        self._on_established = on_established
        self._on_proposal = on_proposal
        self._private = new_private_key()
        self._key: PairKey | None = None
        self._outbox = _Outbox()
        self._lanes: dict[str, Lane] = {}
        self._early: OrderedDict[str, party_pb2.PeerData] = OrderedDict()
        self._ended: OrderedDict[str, TrefoilError | None] = OrderedDict()
        self._pings = 0
        self._pongs: dict[int, asyncio.Future[None]] = {}

    @property
    def key(self) -> PairKey:
        """The key of this stream. Raises `Unavailable` before the hello."""
        if self._key is None:
            raise self._down()
        return self._key

    async def outgoing(self) -> AsyncIterator[party_pb2.PeerFrame]:
        """The frames to write, the hello first, until the link closes."""
        public = self._private.public_key().public_bytes_raw()
        yield party_pb2.PeerFrame(hello=party_pb2.PeerHello(party=self.me, public_key=public, cell=self.cell))
        async for frame in self._outbox:
            yield frame

    async def read(self, frames: AsyncIterator[party_pb2.PeerFrame]) -> None:
        """Serve the stream's other direction until it ends. Closes the link, whatever happens.

        Raises `PeerViolation` when the peer breaks a rule of the stream itself, `Unavailable` when it
        does not say hello in time.
        """
        try:
            try:
                hello = await asyncio.wait_for(anext(frames), HELLO_TIMEOUT_S)
            except (TimeoutError, StopAsyncIteration):
                raise Unavailable(f"Party {self.peer} did not say hello; the link is tried again.") from None
            self._greet(hello)
            async for frame in frames:
                self._dispatch(frame)
        finally:
            self.close()

    def open_lane(
        self, computation_id: str, *, max_bytes: int, on_failure: Callable[[TrefoilError], None]
    ) -> Lane:
        """The lane of a computation that starts now. An id is good for one computation only."""
        if self._key is None or self.closed:
            raise self._down()
        if computation_id in self._ended:
            raise self._ended[computation_id] or _used(computation_id)
        if computation_id in self._lanes:
            raise _used(computation_id)
        lane = Lane(self, computation_id, max_bytes=max_bytes, on_failure=on_failure)
        self._lanes[computation_id] = lane
        early = self._early.pop(computation_id, None)
        if early is not None:
            lane.feed(early)
        return lane

    def end_lane(self, computation_id: str, *, abort_code: str | None) -> None:
        """Forget a computation; with a code, tell the peer that it was aborted here."""
        if self._lanes.pop(computation_id, None) is None:
            return
        self._remember(computation_id, None)
        if abort_code is not None:
            self._abort(computation_id, abort_code)

    async def ping(self, padding_bytes: int) -> float:
        """Seconds until the peer has answered a frame of so many bytes. Raises `Unavailable` once closed.

        It waits its turn behind what is queued, so it is an upper bound.
        """
        self._pings += 1
        number, answered = self._pings, asyncio.get_running_loop().create_future()
        self._pongs[number] = answered
        started_s = time.perf_counter()
        try:
            ping = party_pb2.PeerPing(number=number, padding=bytes(padding_bytes))
            await self.send(party_pb2.PeerFrame(ping=ping))
            await answered
        finally:
            self._pongs.pop(number, None)
        return time.perf_counter() - started_s

    async def propose(self, proposal: party_pb2.PeerProposal) -> None:
        """Ask the peer to take part in a computation that no coordinator announces."""
        await self.send(party_pb2.PeerFrame(proposal=proposal))

    def refuse(self, computation_id: str, code: str) -> None:
        """Tell the peer that its proposal is not followed here."""
        self._remember(computation_id, None)
        self._early.pop(computation_id, None)
        self._abort(computation_id, code)

    async def send(self, frame: party_pb2.PeerFrame) -> None:
        """Queue one frame, waiting while too much is queued. Raises `Unavailable` once closed."""
        if not await self._outbox.put(frame):
            raise self._down()

    def close(self) -> None:
        """End the stream and every computation on it."""
        if self.closed:
            return
        self.closed = True
        self._outbox.close()
        for lane in list(self._lanes.values()):
            lane.fail(self._down())
        for waiting in self._pongs.values():
            if not waiting.done():
                waiting.set_exception(self._down())

    def _greet(self, frame: party_pb2.PeerFrame) -> None:
        if frame.WhichOneof("part") != "hello" or frame.hello.party != self.peer:
            raise self._violation("its first frame was not its own hello")
        if frame.hello.cell != self.cell:
            raise self._violation(
                f"it belongs to cell {frame.hello.cell}, not {self.cell}; check the addresses"
            )
        try:
            self._key = agree_pair_key(
                self._private,
                frame.hello.public_key,
                low=min(self.me, self.peer),
                high=max(self.me, self.peer),
            )
        except InvalidInput:
            raise self._violation("its hello carried no valid key") from None
        self._on_established(self)

    def _dispatch(self, frame: party_pb2.PeerFrame) -> None:
        part = frame.WhichOneof("part")
        if part == "data":
            self._receive(frame.data)
        elif part == "abort":
            self._receive_abort(frame.abort)
        elif part == "proposal":
            self._receive_proposal(frame.proposal)
        elif part == "ping":
            self._receive_ping(frame.ping)
        elif part == "pong":
            self._receive_pong(frame.pong)
        else:
            raise self._violation(f"unexpected frame {part}")

    def _receive(self, data: party_pb2.PeerData) -> None:
        lane = self._lanes.get(data.computation_id)
        if lane is not None:
            lane.feed(data)
        elif data.computation_id in self._ended:
            return  # it was on its way when the computation ended here
        elif self._is_first_word(data):
            self._early[data.computation_id] = data
            if len(self._early) > EARLY_COMPUTATIONS:
                dropped, _ = self._early.popitem(last=False)
                self._abort(dropped, Unavailable.code)
        else:
            self._early.pop(data.computation_id, None)
            self._abort(data.computation_id, "not_found")

    def _is_first_word(self, data: party_pb2.PeerData) -> bool:
        """Whether this may be kept for a computation that has not begun here."""
        return (
            0 < len(data.computation_id) <= MAX_ID_LENGTH
            and data.computation_id not in self._early
            and (data.sequence, data.part, data.parts) == (0, 0, 1)
            and data.ByteSize() <= EARLY_BYTES
        )

    def _receive_abort(self, abort: party_pb2.PeerAbort) -> None:
        computation_id = abort.computation_id
        if len(computation_id) > MAX_ID_LENGTH:
            raise self._violation("an abort with an overlong id")
        error = Unavailable(
            f"Party {self.peer} aborted computation {computation_id} ({_printable(abort.code)}). "
            "Nothing was revealed; ask again."
        )
        self._early.pop(computation_id, None)
        lane = self._lanes.get(computation_id)
        if lane is not None:
            lane.fail(error)
        elif computation_id not in self._ended:
            self._remember(computation_id, error)

    def _receive_ping(self, ping: party_pb2.PeerPing) -> None:
        if len(ping.padding) > MAX_PING_BYTES:
            raise self._violation("a ping of more than it may have")
        if self._outbox.queued < MAX_QUEUED_PONGS:  # who asks too often is not answered
            self._outbox.put_now(party_pb2.PeerFrame(pong=party_pb2.PeerPong(number=ping.number)))

    def _receive_pong(self, pong: party_pb2.PeerPong) -> None:
        waiting = self._pongs.get(pong.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _receive_proposal(self, proposal: party_pb2.PeerProposal) -> None:
        if not 0 < len(proposal.computation_id) <= MAX_ID_LENGTH:
            raise self._violation("a proposal without a proper id")
        if self._on_proposal is None:
            self.refuse(proposal.computation_id, FailedPrecondition.code)
        else:
            self._on_proposal(self, proposal)

    def _remember(self, computation_id: str, error: TrefoilError | None) -> None:
        self._ended[computation_id] = error
        if len(self._ended) > ENDED_COMPUTATIONS:
            self._ended.popitem(last=False)

    def _abort(self, computation_id: str, code: str) -> None:
        if len(computation_id) <= MAX_ID_LENGTH:
            abort = party_pb2.PeerAbort(computation_id=computation_id, code=code)
            self._outbox.put_now(party_pb2.PeerFrame(abort=abort))

    def _down(self) -> Unavailable:
        return Unavailable(
            f"The link between parties {self.me} and {self.peer} is down. Nothing was revealed; ask again."
        )

    def _violation(self, rule: str) -> PeerViolation:
        return PeerViolation(computation="(link)", sender=int(self.peer), rule=rule)


class Lane:
    """One computation on one stream: numbered messages, in order, in both directions."""

    def __init__(
        self,
        link: PeerLink,
        computation_id: str,
        *,
        max_bytes: int,
        on_failure: Callable[[TrefoilError], None],
    ) -> None:
        self._link, self._computation_id = link, computation_id
        self._assembler = Assembler(max_bytes=max_bytes)
        self._on_failure = on_failure
        self._complete: deque[Received] = deque()
        self._arrived = asyncio.Event()
        self._error: TrefoilError | None = None
        self._sent = 0

    @property
    def left_over(self) -> str | None:
        """The label of a message that arrived and that nobody awaited."""
        return self._complete[0].label if self._complete else None

    async def send(self, label: str, message: Message) -> int:
        """Send one message; how many bytes its arrays have."""
        sequence, self._sent = self._sent, self._sent + 1
        size = 0
        for frame in encode_message(self._computation_id, sequence=sequence, label=label, message=message):
            if self._error is not None:
                raise self._error
            size += len(frame.data.payload)
            await self._link.send(frame)
        return size

    async def receive(self, label: str, specs: Mapping[str, ArraySpec]) -> Message:
        """The peer's next message. `PeerViolation` unless it has this label and exactly these arrays."""
        while not self._complete:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        received = self._complete.popleft()
        if received.label != label:
            raise self._violation(f"sent {_printable(received.label)} when {label} was due")
        check_message(
            received.message,
            specs,
            computation=self._computation_id,
            sender=int(self._link.peer),
            label=label,
        )
        return received.message

    def feed(self, data: party_pb2.PeerData) -> None:
        """Take a frame from the stream. A broken rule fails the computation, not the stream."""
        if self._error is not None:
            return
        try:
            received = self._assembler.feed(data)
        except FrameError as error:
            self.fail(self._violation(str(error)))
            return
        if received is not None:
            self._complete.append(received)
            self._arrived.set()

    def fail(self, error: TrefoilError) -> None:
        """End the computation with this error; the first one stays."""
        if self._error is None:
            self._error = error
            self._complete.clear()
            self._arrived.set()
            self._on_failure(error)

    def _violation(self, rule: str) -> PeerViolation:
        return PeerViolation(computation=self._computation_id, sender=int(self._link.peer), rule=rule)


class _Outbox:
    """Frames on their way out. Ordinary frames wait for room; aborts do not."""

    def __init__(self) -> None:
        self._frames: deque[party_pb2.PeerFrame] = deque()
        self._bytes = 0
        self._closed = False
        self._filled, self._drained = asyncio.Event(), asyncio.Event()

    @property
    def queued(self) -> int:
        """Frames that wait."""
        return len(self._frames)

    async def put(self, frame: party_pb2.PeerFrame) -> bool:
        """Whether the frame was queued; False once closed."""
        while self._bytes > OUTBOX_BYTES and not self._closed:
            self._drained.clear()
            await self._drained.wait()
        return self.put_now(frame)

    def put_now(self, frame: party_pb2.PeerFrame) -> bool:
        if self._closed:
            return False
        self._frames.append(frame)
        self._bytes += len(frame.data.payload)
        self._filled.set()
        return True

    def close(self) -> None:
        self._closed = True
        self._frames.clear()
        self._filled.set()
        self._drained.set()

    async def __aiter__(self) -> AsyncIterator[party_pb2.PeerFrame]:
        while True:
            while not self._frames:
                if self._closed:
                    return
                self._filled.clear()
                await self._filled.wait()
            frame = self._frames.popleft()
            self._bytes -= len(frame.data.payload)
            self._drained.set()
            yield frame


def _used(computation_id: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"Computation {computation_id} was used before, and its masks must not be drawn again. "
        "Ask for a new one."
    )


def _printable(text: str) -> str:
    """What a peer wrote, fit for an error text."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:64])
