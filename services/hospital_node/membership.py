"""Whether the hospital takes part in the federation: its own decision, which outlives a restart.

While it does, the link to the coordinator is kept open. When it leaves, what runs is stopped, the coordinator
is told once it can be reached, and then this node dials nobody.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from libs.core.errors import CallerError, InvalidInput, TrefoilError
from libs.runtime.logging import get_logger
from services.hospital_node.link import Backoff

log = get_logger(__name__)

MAX_REQUEST_ID = 100


class MembershipState(enum.Enum):
    """LEAVING until the coordinator has heard of it."""

    JOINED = "joined"
    LEAVING = "leaving"
    LEFT = "left"


class MembershipStore(Protocol):
    """The stored state. Every method is one transaction."""

    async def state(self) -> MembershipState: ...

    async def change(self, state: MembershipState, *, request_id: str, actor: str) -> bool:
        """Store it and who decided so, unless this request did before. Whether it did so now."""
        ...

    async def left(self) -> None:
        """From LEAVING to LEFT."""
        ...


class Membership:
    """Runs the link or does not, as the hospital's staff decided."""

    def __init__(
        self,
        *,
        store: MembershipStore,
        keep_attached: Callable[[], Awaitable[None]],
        say_goodbye: Callable[[], Awaitable[None]],
        stop_work: Callable[[], Awaitable[None]],
        backoff: Backoff | None = None,
    ) -> None:
        """`keep_attached` never ends by itself; `say_goodbye` raises TrefoilError when it was not heard."""
        self._store, self._keep_attached, self._say_goodbye = store, keep_attached, say_goodbye
        self._stop_work, self._backoff = stop_work, backoff or Backoff()
        self._changed = asyncio.Event()

    async def takes_part(self) -> bool:
        """False from the moment that somebody decided to leave."""
        return await self._store.state() is MembershipState.JOINED

    async def join(self, *, request_id: str, actor: str) -> None:
        """Take part again. The same request twice does nothing the second time."""
        await self._change(MembershipState.JOINED, request_id, actor)

    async def leave(self, *, request_id: str, actor: str) -> None:
        """Take part no longer: nothing of this hospital is sent from now on.

        A repetition stops what runs as well: the caller of the first may have hung up in between.
        """
        await self._change(MembershipState.LEAVING, request_id, actor)
        if not await self.takes_part():
            await self._stop_work()

    async def run(self) -> None:
        """Do what was decided, for ever. Only cancelling ends it."""
        while True:
            self._changed.clear()
            state = await self._store.state()
            if state is MembershipState.JOINED:
                await self._until_changed(self._keep_attached())
            elif state is MembershipState.LEAVING:
                await self._until_changed(self._tell())
            else:
                await self._changed.wait()

    async def _change(self, state: MembershipState, request_id: str, actor: str) -> bool:
        if not 1 <= len(request_id) <= MAX_REQUEST_ID:
            raise InvalidInput(f"The request id has 1 to {MAX_REQUEST_ID} characters.")
        changed = await self._store.change(state, request_id=request_id, actor=actor)
        if changed:
            log.info("membership_changed", state=state.value)
            self._changed.set()
        return changed

    async def _until_changed(self, work: Awaitable[None]) -> None:
        """Run `work` to its end, or until another decision interrupts it."""
        working = asyncio.ensure_future(work)
        deciding = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({working, deciding}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (working, deciding):
                task.cancel()
            await asyncio.gather(working, deciding, return_exceptions=True)

    async def _tell(self) -> None:
        """Say goodbye until it is heard. A coordinator that refuses to listen has nothing to forget."""
        failures = 0
        while True:
            try:
                await self._say_goodbye()
            except CallerError as error:
                log.info("goodbye_not_needed", code=error.code)
                break
            except TrefoilError as error:
                failures += 1
                wait_s = self._backoff.wait_s(failures, jitter=random.random())  # noqa: S311 - load only
                log.warning("goodbye_not_heard", code=error.code, wait_s=round(wait_s, 2))
                await asyncio.sleep(wait_s)
            else:
                break
        await self._store.left()
