"""Material made ahead: kept encrypted, reserved by the three parties together, used once.

A piece leaves the list of every party before anything of it is used: the dealer's when it picks it, an
evaluator's when it hears of the pick, each with a commit that is on the disk before the next message. So
whichever party crashes, and whenever, a piece that was picked once is never picked again: the dealer of a
shelf alone picks, and it has forgotten the piece. What one party has and another does not is burned.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from libs.core.clock import Clock
from libs.core.ids import PartyId
from libs.mpc.program import ArraySpec, Program, Round
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc.computation import Session
from libs.rpc.run_party import run_party
from libs.runtime.logging import get_logger
from libs.secure_nn.material_codec import dump_material, load_material
from libs.secure_nn.predict import Material
from services.smpc_party.dealing import Dealt, Ready
from services.smpc_party.masked_models import MaskedModels, ModelShare, blob_name
from services.smpc_party.material import Piece, Shelf
from services.smpc_party.ports import Blobs, PieceIndex

log = get_logger(__name__)

PICKS = 4
"""How often a reservation tries another piece when an evaluator lost the first."""

MAX_LEVEL = 64
"""Pieces of one shelf, at most."""

ID_BYTES = 32
_U8 = np.dtype(np.uint8)
_OFFER = {"piece": ArraySpec(_U8, (ID_BYTES,))}
_LIST = {"pieces": ArraySpec(_U8, (MAX_LEVEL * ID_BYTES,))}
_FLAG = {"flag": ArraySpec(_U8, (1,))}


@dataclass
class ShelfCount:
    """What happened on one shelf since the start."""

    made: int = 0
    taken: int = 0
    burned: int = 0
    making_s: float = 0.0


@dataclass(frozen=True)
class ShelfLevel:
    """One shelf as this party sees it."""

    shelf: Shelf
    ready: int
    count: ShelfCount
    oldest_age_s: float
    stored_bytes: int


@dataclass
class _Cache:
    """Pieces that need not be read from the disk; the newest are left out when it is full."""

    max_bytes: int
    used_bytes: int = 0
    pieces: OrderedDict[str, tuple[Material, int]] = field(default_factory=OrderedDict)

    def add(self, piece: Piece, material: Material) -> None:
        if self.used_bytes + piece.stored_bytes <= self.max_bytes:
            self.pieces[piece.piece_id] = (material, piece.stored_bytes)
            self.used_bytes += piece.stored_bytes

    def pop(self, piece_id: str) -> Material | None:
        material, size_bytes = self.pieces.pop(piece_id, (None, 0))
        self.used_bytes -= size_bytes
        return material


class Pool:
    """This party's pieces. Use `open` once before anything else."""

    def __init__(
        self,
        *,
        me: PartyId,
        index: PieceIndex,
        blobs: Blobs,
        masked_models: MaskedModels,
        clock: Clock,
        executor: Executor,
        memory_bytes: int,
    ) -> None:
        """`memory_bytes`: how much of the newest material stays in memory besides the disk."""
        self._me, self._index, self._blobs, self._masked_models = me, index, blobs, masked_models
        self._clock, self._executor = clock, executor
        self._cache = _Cache(memory_bytes)
        self._counts: defaultdict[Shelf, ShelfCount] = defaultdict(ShelfCount)
        self._ready: dict[Shelf, dict[str, Piece]] = {}
        # shelf -> masking, in the order of their first use -> the pieces that need it
        self._users: defaultdict[Shelf, defaultdict[bytes, set[str]]]
        self._users = defaultdict(lambda: defaultdict(set))
        self._doubted: defaultdict[Shelf, set[str]] = defaultdict(set)
        self.on_taken: Callable[[Shelf], None] = lambda _shelf: None
        """Called after a piece was taken or burned."""

    def open(self) -> None:
        """Bring list and disk together after a restart: what one of them lacks is burned. Blocks."""
        pieces = self._index.ready()
        files = [p.piece_id for p in pieces if not self._deals(p)]
        maskings = {p.masking for p in pieces if not self._deals(p)}
        missing = set(self._blobs.clean([*files, *map(blob_name, maskings)]))
        self._masked_models.found_stored(m for m in maskings if blob_name(m) not in missing)
        for piece in pieces:
            lost = {piece.piece_id, blob_name(piece.masking)} & missing
            if lost and not self._deals(piece):
                self._index.burn(piece.piece_id)
                self._blobs.delete(piece.piece_id)
            else:
                self._enter(piece)
        if pieces:
            log.info("pool_opened", ready=len(pieces), lost=len(missing))

    # ---------------------------------------------------------------- making

    async def keep(self, piece_id: str, shelf: Shelf, dealt: Dealt) -> None:
        """Put this party's part of a fresh piece on its shelf. Raises `StorageFull`, `MaskReuse`."""
        piece = await asyncio.to_thread(self._store, piece_id, shelf, dealt)
        self._enter(piece)
        if dealt.ready is not None:
            self._cache.add(piece, dealt.ready.material)
        count = self._counts[shelf]
        count.made += 1
        count.making_s += dealt.seconds

    def _store(self, piece_id: str, shelf: Shelf, dealt: Dealt) -> Piece:
        stored_bytes = received_bytes = 0
        if dealt.ready is not None:
            content = list(dump_material(dealt.ready.material))
            self._masked_models.store(dealt.masking, dealt.ready.weights)
            stored_bytes = self._blobs.save(piece_id, content, size_bytes=sum(map(len, content)))
            received_bytes = dealt.ready.received_bytes
        made_at_s = self._clock.now().timestamp()
        piece = Piece(piece_id, shelf, dealt.masking, made_at_s, dealt.seconds, received_bytes, stored_bytes)
        try:
            self._index.add(piece)
        except BaseException:
            self._blobs.delete(piece_id)
            raise
        return piece

    # ---------------------------------------------------------------- using

    async def reserve(self, session: Session, shelf: Shelf) -> Piece | None:
        """A piece that all three parties took for this computation; None if they have none together.

        Two messages if the first pick is good. Whatever was taken and is not returned is burned.
        """
        taken: list[Piece] = []
        chosen: Piece | None = None
        program = self._pick if self._me == shelf.roles.dealer else self._follow
        try:
            chosen = await run_party(program(shelf, taken), session, executor=self._executor)
        finally:
            for piece in taken:
                if piece is not chosen:
                    self._burned(piece)
        if chosen is not None:
            self._counts[shelf].taken += 1
        if taken:
            self.on_taken(shelf)
        return chosen

    async def fetch(self, piece: Piece, model: ModelShare) -> Ready:
        """An evaluator's material of a piece that was reserved; it is on no disk afterwards."""
        material = self._cache.pop(piece.piece_id)
        if material is None:
            material = await asyncio.to_thread(lambda: load_material(self._blobs.load(piece.piece_id)))
        weights = await self._masked_models.weights(model, piece.shelf.roles, piece.masking)
        await asyncio.to_thread(self._delete, piece, self._release(piece))
        return Ready(material, weights, piece.seconds, piece.received_bytes)

    def _pick(self, shelf: Shelf, taken: list[Piece]) -> Program[Piece | None]:
        """The dealer's side."""
        evaluators = (shelf.roles.first, shelf.roles.second)
        for number in range(PICKS):
            piece = self._take(self._index.take_oldest(shelf), taken)
            offer = {"piece": _ids([piece] if piece is not None else [], slots=1)}
            yield Round(f"pool/offer/{number}", sends=dict.fromkeys(evaluators, offer))
            if piece is None:
                break
            inbox = yield Round(f"pool/known/{number}", awaits=dict.fromkeys(evaluators, _FLAG))
            if all(bool(message["flag"][0]) for message in inbox.values()):
                return piece
        return None

    def _follow(self, shelf: Shelf, taken: list[Piece]) -> Program[Piece | None]:
        """An evaluator's side."""
        for number in range(PICKS):
            inbox = yield Round(f"pool/offer/{number}", awaits={shelf.roles.dealer: _OFFER})
            offered = _names(inbox[shelf.roles.dealer]["piece"])
            if not offered:
                break
            piece = self._take(self._index.take(offered.pop(), shelf), taken)
            if (yield from _compare(shelf.roles, self._me, known=piece is not None, number=number)):
                return piece
        return None

    def _take(self, piece: Piece | None, taken: list[Piece]) -> Piece | None:
        """The list has forgotten it; so does the memory."""
        if piece is not None:
            self._ready.get(piece.shelf, {}).pop(piece.piece_id, None)
            taken.append(piece)
        return piece

    # ---------------------------------------------------------------- agreeing on what is there

    async def synchronise(self, session: Session, shelf: Shelf) -> None:
        """The dealer tells the evaluators what is on its shelf; what it does not know it can never pick.

        Such a piece is burned when two such lists in a row lack it: it may be on its way to being used.
        """
        dealer = shelf.roles.dealer
        if self._me == dealer:
            listed = {"pieces": _ids(list(self._ready.get(shelf, {}).values()), slots=MAX_LEVEL)}
            for evaluator in (shelf.roles.first, shelf.roles.second):
                await session.send(evaluator, "pool/list", listed)
            return
        message = await session.receive(dealer, "pool/list", _LIST)
        unknown = set(self._ready.get(shelf, {})) - _names(message["pieces"])
        for piece_id in unknown & self._doubted[shelf]:
            piece = await asyncio.to_thread(self._index.burn, piece_id)
            if self._take(piece, []) is not None and piece is not None:
                self._burned(piece)
        self._doubted[shelf] = unknown

    async def confirm(self, session: Session, shelf: Shelf) -> None:
        """The evaluators tell the dealer that their parts are kept; only then may it pick the piece."""
        roles = shelf.roles
        if self._me != roles.dealer:
            await session.send(roles.dealer, "pool/kept", {"flag": np.ones(1, np.uint8)})
            return
        for evaluator in (roles.first, roles.second):
            await session.receive(evaluator, "pool/kept", _FLAG)

    # ---------------------------------------------------------------- watching

    def level(self, shelf: Shelf) -> int:
        """Ready pieces of a shelf."""
        return len(self._ready.get(shelf, ()))

    def shelves(self) -> list[Shelf]:
        """Every shelf that has or had a piece since the start."""
        return list({**self._ready, **self._counts})

    def levels(self) -> list[ShelfLevel]:
        """Every shelf and what happened on it."""
        now_s = self._clock.now().timestamp()
        levels = []
        for shelf in self.shelves():
            pieces = list(self._ready.get(shelf, {}).values())
            oldest = max((now_s - piece.made_at_s for piece in pieces), default=0.0)
            size = sum(piece.stored_bytes for piece in pieces)
            levels.append(ShelfLevel(shelf, len(pieces), self._counts[shelf], max(oldest, 0.0), size))
        return levels

    # ---------------------------------------------------------------- bookkeeping

    def _deals(self, piece: Piece) -> bool:
        return piece.shelf.roles.dealer == self._me

    def _enter(self, piece: Piece) -> None:
        self._ready.setdefault(piece.shelf, {})[piece.piece_id] = piece
        if not self._deals(piece):
            self._users[piece.shelf][piece.masking].add(piece.piece_id)

    def _burned(self, piece: Piece) -> None:
        """It is on no list any more; what is left of it goes."""
        self._counts[piece.shelf].burned += 1
        self._cache.pop(piece.piece_id)
        if not self._deals(piece):
            self._delete(piece, self._release(piece))
        log.warning("material_burned", piece=piece.piece_id, model=piece.shelf.model_id)

    def _release(self, piece: Piece) -> list[bytes]:
        """Nothing needs this piece any more; the shelf's maskings that nothing needs, but for the newest."""
        users = self._users[piece.shelf]
        users[piece.masking].discard(piece.piece_id)
        idle = [name for name in list(users)[:-1] if not users[name]]
        for name in idle:
            del users[name]
        return idle

    def _delete(self, piece: Piece, maskings: list[bytes]) -> None:
        self._blobs.delete(piece.piece_id)
        self._masked_models.forget_stored(maskings)


def _ids(pieces: list[Piece], *, slots: int) -> npt.NDArray[np.uint8]:
    """Names in slots of equal length. Shape (slots * ID_BYTES,)."""
    names = b"".join(piece.piece_id.encode().ljust(ID_BYTES, b"\0") for piece in pieces[:slots])
    return np.frombuffer(names.ljust(slots * ID_BYTES, b"\0"), dtype=np.uint8)


def _names(slots: npt.NDArray[np.uint8]) -> set[str]:
    names = (slots[i : i + ID_BYTES].tobytes().rstrip(b"\0") for i in range(0, len(slots), ID_BYTES))
    return {name.decode("ascii", "replace") for name in names if name}


def _compare(roles: Roles, me: PartyId, *, known: bool, number: int) -> Program[bool]:
    """Whether both evaluators have the piece; each tells the other and the dealer."""
    peer = roles.second if me == roles.first else roles.first
    mine = {"flag": np.array([known], dtype=np.uint8)}
    inbox = yield Round(f"pool/known/{number}", {roles.dealer: mine, peer: mine}, {peer: _FLAG})
    return known and bool(inbox[peer]["flag"][0])
