"""Hundreds of predictions with parties killed at random moments: no piece of material serves twice.

Real pools on real databases; only the links and the pieces' content are made up. A kill cancels what a
party does and opens its pool again from its disk, as a restart does.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.clock import SystemClock
from libs.core.errors import TrefoilError, Unavailable
from libs.core.ids import PARTIES, PartyId, new_id
from libs.core.secret import Secret
from libs.mpc.program import ArraySpec, Message
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn.predict import Material
from libs.secure_nn.secure_model import EvaluatorModel
from services.smpc_party.adapters.pool_index import PoolIndex
from services.smpc_party.adapters.sealed_folder import SealedFolder
from services.smpc_party.dealing import Dealt, Ready
from services.smpc_party.masked_models import MaskedModels
from services.smpc_party.material import Piece, Shelf
from services.smpc_party.pool import Pool

SHELVES = [Shelf.of_dealer(party, model_id="model", batch=1) for party in PARTIES]
EXECUTOR = ThreadPoolExecutor(4)
MASKING = bytes(32)


@dataclass
class Wire:
    """The three parties' links within one computation; `cut` ends it for whoever still waits."""

    queues: dict[tuple[PartyId, PartyId], asyncio.Queue[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queues = {(a, b): asyncio.Queue() for a in PARTIES for b in PARTIES if a != b}

    def cut(self, party: PartyId) -> None:
        for (sender, _), queue in self.queues.items():
            if sender == party:
                queue.put_nowait(None)


@dataclass
class FakeSession:
    """What the pool uses of a session."""

    me: PartyId
    wire: Wire
    rounds: int = 0

    async def send(self, receiver: PartyId, label: str, message: Message) -> None:
        self.wire.queues[self.me, receiver].put_nowait((label, message))

    async def receive(self, sender: PartyId, label: str, specs: Mapping[str, ArraySpec]) -> Message:
        received = await self.wire.queues[sender, self.me].get()
        if received is None:
            raise Unavailable("The peer is gone.")
        assert received[0] == label
        assert received[1].keys() == specs.keys()
        message: Message = received[1]
        return message


class Party:
    """One party's disk, and the pool that is open on it."""

    def __init__(self, me: PartyId, folder: Path) -> None:
        self.me, self.folder = me, folder
        folder.mkdir()
        self.open()

    def open(self) -> None:
        self.index = PoolIndex(self.folder / "pool.db")
        blobs = SealedFolder(self.folder / "material", Secret(bytes(32)), max_bytes=1 << 30)
        unused: Any = None
        maskings = MaskedModels(me=self.me, shares=unused, peers=unused, blobs=blobs, executor=EXECUTOR)
        self.pool = Pool(
            me=self.me,
            index=self.index,
            blobs=blobs,
            masked_models=maskings,
            clock=SystemClock(),
            executor=EXECUTOR,
            memory_bytes=1 << 20,
        )
        self.pool.open()

    def restart(self) -> None:
        self.index.close()
        self.open()

    async def make(self, piece_id: str, shelf: Shelf) -> None:
        ready = None
        if shelf.roles.dealer != self.me:
            material = Material(1, Comparison.NARROW, piece_id.encode()[:16])
            weights = EvaluatorModel((), (np.zeros(4, np.uint32),))
            ready = Ready(material, weights, seconds=0.0, received_bytes=0)
        await self.pool.keep(piece_id, shelf, Dealt(MASKING, 0.0, ready))


async def make_piece(parties: list[Party], shelf: Shelf, rng: random.Random) -> None:
    """The evaluators keep their parts before the dealer lists the piece; a kill may come anywhere."""
    piece_id = new_id("deal")
    order = sorted(parties, key=lambda party: party.me == shelf.roles.dealer)
    for party in order:
        if rng.random() < 0.05:
            rng.choice(parties).restart()
            return
        await party.make(piece_id, shelf)


async def predict(parties: list[Party], shelf: Shelf, rng: random.Random) -> dict[PartyId, Piece | None]:
    """What each party's reservation gave; with some chance one party dies on the way."""
    wire = Wire()
    sessions: dict[PartyId, Any] = {party.me: FakeSession(party.me, wire) for party in parties}
    tasks = {p.me: asyncio.create_task(p.pool.reserve(sessions[p.me], shelf)) for p in parties}
    if rng.random() < 0.3:
        victim = rng.choice(parties)
        await asyncio.sleep(rng.choice([0.0, 0.001, 0.002, 0.004]))
        tasks[victim.me].cancel()
        wire.cut(victim.me)
        await asyncio.wait(tasks.values())
        victim.restart()
    outcomes = {}
    for party, task in tasks.items():
        try:
            outcomes[party] = await task
        except (TrefoilError, asyncio.CancelledError):
            outcomes[party] = None
    return outcomes


@pytest.mark.parametrize(
    ("seed", "predictions"), [(1, 150), *(pytest.param(seed, 500, marks=pytest.mark.slow) for seed in (2, 3))]
)
async def test_no_piece_serves_two_predictions_whoever_is_killed_and_when(
    tmp_path: Path, seed: int, predictions: int
) -> None:
    rng = random.Random(seed)
    parties = [Party(party, tmp_path / f"party-{party}") for party in PARTIES]
    used: Counter[str] = Counter()
    agreed = 0
    for number in range(predictions):
        shelf = SHELVES[number % 3]
        if parties[shelf.roles.dealer].pool.level(shelf) < 2:
            await make_piece(parties, shelf, rng)
        outcomes = await predict(parties, shelf, rng)
        evaluators = [outcomes[shelf.roles.first], outcomes[shelf.roles.second]]
        for piece in {p.piece_id for p in outcomes.values() if p is not None}:
            used[piece] += 1
        if None not in evaluators:
            agreed += 1
            assert evaluators[0]
            assert evaluators[1]
            assert evaluators[0].piece_id == evaluators[1].piece_id
            for party in parties:
                assert party.index.take(evaluators[0].piece_id, shelf) is None
    assert agreed > predictions // 2
    assert max(used.values()) == 1
