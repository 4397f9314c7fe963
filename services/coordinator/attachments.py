"""The streams of attached hospitals: who is there, since when not, and what each is sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from libs.core.clock import Clock
from libs.core.errors import FailedPrecondition, Unavailable
from libs.runtime.logging import get_logger
from services.coordinator.domain import Study
from services.coordinator.orders import Order, OrderKey, outstanding_orders

log = get_logger(__name__)


class Attachment:
    """One hospital's stream: a queue of orders, each of them sent once."""

    def __init__(self, hospital: str, key_sha256: str = "") -> None:
        self.hospital, self.key_sha256 = hospital, key_sha256
        self.cut_off = False
        self._queue: asyncio.Queue[Order | None] = asyncio.Queue()
        self._queued: set[OrderKey] = set()
        self._reason: Exception | None = None

    def push(self, order: Order) -> None:
        """Queue the order unless this stream has had it."""
        if order.key not in self._queued:
            self._queued.add(order.key)
            self._queue.put_nowait(order)

    def close(self, reason: Exception | None = None) -> None:
        """End the stream; with a reason, as an error that the hospital sees."""
        self._reason = self._reason or reason
        self._queue.put_nowait(None)

    def cut(self, reason: Exception | None) -> None:
        """End the stream at once: what is queued is not sent any more, and nothing that comes counts."""
        self.cut_off = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self.close(reason)

    async def orders(self) -> AsyncIterator[Order]:
        """What to send, until closed."""
        while (order := await self._queue.get()) is not None and not self.cut_off:
            yield order
        if self._reason is not None:
            raise self._reason


class Attachments:
    """All hospitals that are attached now."""

    def __init__(self, *, clock: Clock, reattach_grace_s: float) -> None:
        self._clock, self._grace_s = clock, reattach_grace_s
        self._attached: dict[str, Attachment] = {}
        self._seen: dict[str, datetime] = {}
        self._left_at_s: dict[str, float] = {}
        self._started_at_s = clock.monotonic_s()
        self._closed = False

    def attach(self, hospital: str, *, key_sha256: str = "") -> Attachment:
        """A new stream. It replaces an older one, whose end may not have been noticed yet.

        `key_sha256`: of the key that its connection proved.
        """
        if self._closed:
            raise Unavailable("The coordinator is stopping. Attach again in a moment.")
        replaced = self._attached.get(hospital)
        if replaced is not None:
            replaced.close(
                FailedPrecondition(
                    "This hospital attached again on another stream. If two nodes run with one certificate, "
                    "stop one of them."
                )
            )
        attachment = Attachment(hospital, key_sha256)
        self._attached[hospital] = attachment
        self.touch(hospital)
        log.info("hospital_attached", hospital=hospital, replaced=replaced is not None)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """The stream ended. Nothing changes if a newer one has taken its place."""
        if self._attached.get(attachment.hospital) is attachment:
            del self._attached[attachment.hospital]
            self._left_at_s[attachment.hospital] = self._clock.monotonic_s()
            log.info("hospital_detached", hospital=attachment.hospital)

    def expel(self, hospital: str, reason: Exception | None, *, key_sha256: str = "") -> None:
        """End the hospital's stream at once, if it is attached (with this key, where one is given).

        Nobody waits for it to come back: it counts as gone from now on.
        """
        attachment = self._attached.get(hospital)
        if attachment is not None and key_sha256 in {"", attachment.key_sha256}:
            del self._attached[hospital]
            attachment.cut(reason)
            log.info("hospital_expelled", hospital=hospital)
        if hospital not in self._attached:
            self._left_at_s[hospital] = -math.inf

    def push(self, hospital: str, order: Order) -> None:
        """Queue an order for the hospital if it is attached."""
        attachment = self._attached.get(hospital)
        if attachment is not None:
            attachment.push(order)

    def touch(self, hospital: str) -> datetime:
        """The hospital was heard of just now."""
        self._seen[hospital] = self._clock.now()
        return self._seen[hospital]

    def last_seen(self, hospital: str) -> datetime | None:
        """When the hospital was heard of last, since the coordinator started."""
        return self._seen.get(hospital)

    @property
    def present(self) -> frozenset[str]:
        """The hospitals that are attached."""
        return frozenset(self._attached)

    def gone(self, hospitals: Iterable[str]) -> frozenset[str]:
        """Those away for longer than the grace time, counted from our start at the earliest."""
        limit = self._clock.monotonic_s() - self._grace_s
        return frozenset(
            hospital
            for hospital in hospitals
            if hospital not in self._attached and self._left_at_s.get(hospital, self._started_at_s) <= limit
        )

    def deliver(self, study: Study) -> None:
        """Queue whatever the study's attached hospitals have to be told."""
        for member in study.members:
            attachment = self._attached.get(member.hospital)
            if attachment is not None:
                for order in outstanding_orders(study, member.hospital):
                    attachment.push(order)

    def close(self) -> None:
        """End all streams: the coordinator stops."""
        self._closed = True
        for attachment in self._attached.values():
            attachment.close(Unavailable("The coordinator is stopping. Attach again in a moment."))
