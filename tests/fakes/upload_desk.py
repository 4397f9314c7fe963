"""A party's share desk on a real disk, whose steps can be held."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from libs.core.secret import Secret
from libs.mpc.ring import Ring
from libs.rpc.identity import Identity, Kind
from services.smpc_party.adapters.index import AUDIT, Index
from services.smpc_party.adapters.share_store import ShareStore
from services.smpc_party.domain import ModelSpec
from services.smpc_party.uploads import ShareDesk
from services.smpc_party.vectors import ModelVector, Upload
from tests.fakes.audit import unsigned_trail

DEALER = Identity(Kind.CLIENT, "dana")
KEY = Secret(bytes(range(32)))


def upload_of(values: np.ndarray, upload_id: str = "upload-1") -> Upload:
    """All of a model's share, as its dealer announces it."""
    digest = hashlib.sha256(values.tobytes()).digest()
    return Upload(upload_id, ModelVector("m"), Ring.RING_32, len(values), None, digest)


class Desk:
    """A desk on a real disk, and a switch that holds one of its steps until it is let go.

    The folder may be that of an earlier desk: as after a restart.
    """

    def __init__(
        self, folder: Path, *, length: int = 1000, quota_bytes: int = 10_000, ttl_s: float = 60.0
    ) -> None:
        self.store = ShareStore(folder, KEY, quota_bytes=quota_bytes)
        self.index = Index(folder / "index.db", unsigned_trail(AUDIT))
        self.store.clean(self.index.share_names())
        self.desk = ShareDesk(rounds=self.index, shares=self.store, idle_s=0.2, shortest_s=0.4, ttl_s=ttl_s)
        self.folder, self.held, self.let_go = folder, threading.Event(), threading.Event()
        for name in ("m", "other"):
            self.index.add_model(ModelSpec(name, Ring.RING_32, length, DEALER, frozenset({DEALER}), b""))

    def hold(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **kwargs: Any) -> Any:
            self.held.set()
            self.let_go.wait(10)
            return function(*args, **kwargs)

        return held

    async def put(self, upload: Upload, *chunks: bytes) -> bool:
        """All that is left of an upload; whether it had been stored before."""

        async def stream() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        return await self.desk.put(upload, DEALER, stream())

    async def break_off(self, upload: Upload, *chunks: bytes) -> None:
        """Send these, then lose the line."""
        sent = asyncio.Event()

        async def stream() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk
            sent.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(self.desk.put(upload, DEALER, stream()))
        await asyncio.wait_for(sent.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def received(self, upload: Upload) -> int:
        """How far the upload came, by the desk's own word."""
        return (await self.desk.describe(upload, DEALER)).received_bytes

    def files(self) -> set[str]:
        """Shares, finished or not."""
        return {path.name for name in ("shares", "incoming") for path in (self.folder / name).iterdir()}


def rest(upload: Upload, offset: int) -> Upload:
    """The header of what follows."""
    return replace(upload, offset=offset)
