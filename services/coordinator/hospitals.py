"""One hospital's stream, from hello to goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.identity import Identity
from services.coordinator.attachments import Attachment, Attachments
from services.coordinator.catalogue import Catalogue
from services.coordinator.hospital_events import HospitalEvents
from services.coordinator.journal import Journal

_HELLO_WITHIN_S = 30.0


class Hospitals:
    """Serves the streams of hospitals."""

    def __init__(
        self,
        *,
        attachments: Attachments,
        catalogue: Catalogue,
        events: HospitalEvents,
        journal: Journal,
        welcome: coordinator_pb2.Welcome,
    ) -> None:
        self._attachments, self._catalogue, self._events = attachments, catalogue, events
        self._journal, self._welcome = journal, welcome

    async def serve(
        self, hospital: Identity, events: AsyncIterator[coordinator_pb2.HospitalEvent]
    ) -> AsyncIterator[coordinator_pb2.CoordinatorOrder]:
        """Orders for this hospital until either side ends the stream. InvalidInput without a hello."""
        await self._greet(hospital, events)
        attachment = self._attachments.attach(hospital.uri)
        reading = asyncio.create_task(self._read(hospital, attachment, events))
        try:
            yield coordinator_pb2.CoordinatorOrder(welcome=self._welcome)
            self._journal.hospital_attached(hospital.uri)
            async for order in attachment.orders():
                yield order.message
                if order.message.HasField("study_ended"):
                    self._journal.end_was_told(order.key.study_id, hospital.uri)
        finally:
            reading.cancel()
            self._attachments.detach(attachment)
            self._catalogue.goodbye(hospital)
            self._journal.hospital_detached(hospital.uri)

    async def _greet(self, hospital: Identity, events: AsyncIterator[coordinator_pb2.HospitalEvent]) -> None:
        first = None
        with suppress(StopAsyncIteration, TimeoutError):
            first = await asyncio.wait_for(anext(events), _HELLO_WITHIN_S)
        if first is None or not first.HasField("hello"):
            raise InvalidInput("A hospital's stream begins with hello. Update the hospital node.")
        self._events.apply(hospital, first)

    async def _read(
        self,
        hospital: Identity,
        attachment: Attachment,
        events: AsyncIterator[coordinator_pb2.HospitalEvent],
    ) -> None:
        """Apply what the hospital says until it says no more. An error ends the stream and is its answer."""
        try:
            async for event in events:
                self._events.apply(hospital, event)
        except Exception as error:
            attachment.close(error)
        else:
            attachment.close()
