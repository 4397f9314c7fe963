"""One hospital's stream, from hello to goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.identity import Identity
from services.coordinator.access import AccessRequests
from services.coordinator.associations import Associations
from services.coordinator.attachments import Attachment, Attachments
from services.coordinator.catalogue import Catalogue
from services.coordinator.hospital_events import HospitalEvents
from services.coordinator.journal import Journal
from services.coordinator.turns import Turns

_HELLO_WITHIN_S = 30.0
_FIRST = ("hello", "leave")


class Hospitals:
    """Serves the streams of hospitals."""

    def __init__(
        self,
        *,
        attachments: Attachments,
        associations: Associations,
        catalogue: Catalogue,
        access: AccessRequests,
        events: HospitalEvents,
        journal: Journal,
        welcome: coordinator_pb2.Welcome,
    ) -> None:
        self._associations, self._access = associations, access
        self._attachments, self._catalogue, self._events = attachments, catalogue, events
        self._journal, self._welcome = journal, welcome
        self._turns = Turns()

    async def serve(
        self,
        hospital: Identity,
        events: AsyncIterator[coordinator_pb2.HospitalEvent],
        *,
        key_sha256: str,
    ) -> AsyncIterator[coordinator_pb2.CoordinatorOrder]:
        """Orders for this hospital until either side ends the stream.

        `key_sha256`: of the key that the connection proved. InvalidInput without a hello; nothing is passed
        on, in either direction, before `Associations.admit` lets the hospital in.
        """
        hello = await self._first(events)
        await self._turns.take()
        if hello.HasField("leave"):
            self._associations.leave(hospital, key_sha256)
            return
        self._associations.admit(hospital, key_sha256, name=hello.hello.name)
        self._events.apply(hospital, hello)
        attachment = self._attachments.attach(hospital.uri, key_sha256=key_sha256)
        reading = asyncio.create_task(self._read(hospital, attachment, events))
        try:
            yield coordinator_pb2.CoordinatorOrder(welcome=self._welcome)
            self._journal.hospital_attached(hospital.uri)
            self._access.deliver(hospital.uri)
            async for order in attachment.orders():
                yield order.message
                if order.message.HasField("study_ended"):
                    self._journal.end_was_told(order.key.study_id, hospital.uri)
                elif order.message.HasField("access_request"):
                    self._access.was_delivered(order.message.access_request.request_id)
        finally:
            reading.cancel()
            self._attachments.detach(attachment)
            self._catalogue.goodbye(hospital)
            self._journal.hospital_detached(hospital.uri)

    async def _first(
        self, events: AsyncIterator[coordinator_pb2.HospitalEvent]
    ) -> coordinator_pb2.HospitalEvent:
        first = None
        with suppress(StopAsyncIteration, TimeoutError):
            first = await asyncio.wait_for(anext(events), _HELLO_WITHIN_S)
        if first is None or first.WhichOneof("event") not in _FIRST:
            raise InvalidInput("A hospital's stream begins with hello, or is a goodbye. Update its node.")
        return first

    async def _read(
        self,
        hospital: Identity,
        attachment: Attachment,
        events: AsyncIterator[coordinator_pb2.HospitalEvent],
    ) -> None:
        """Apply what the hospital says until it says no more. An error ends the stream and is its answer."""
        try:
            async for event in events:
                await self._turns.take()
                if attachment.cut_off:  # perhaps while this event waited
                    return
                if event.HasField("leave"):
                    self._associations.leave(hospital, attachment.key_sha256)
                else:
                    self._events.apply(hospital, event)
        except Exception as error:
            attachment.close(error)
        else:
            attachment.close()
