"""The calls of HospitalService about data sets: each change is made once for a request id, and then told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from libs.core.clock import Clock
from libs.core.errors import InvalidInput
from libs.data.disclosure import CountDisclosure
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2 as pb
from libs.rpc.caller import current_actor
from libs.runtime.logging import get_logger
from services.hospital_node.datasets import Draft, Publication, Publisher, publish, withdraw
from services.hospital_node.domain import Dataset
from services.hospital_node.ports import Announcer, Datasets, Shelf

Answer = TypeVar("Answer", bound=Message)

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

_DISCLOSURES: dict[pb.CountDisclosure.ValueType, CountDisclosure] = {
    pb.COUNT_DISCLOSURE_UNSPECIFIED: CountDisclosure.ROUNDED,
    pb.COUNT_DISCLOSURE_EXACT: CountDisclosure.EXACT,
    pb.COUNT_DISCLOSURE_ROUNDED: CountDisclosure.ROUNDED,
    pb.COUNT_DISCLOSURE_WITHHELD: CountDisclosure.WITHHELD,
}

log = get_logger(__name__)


class DatasetCalls:
    """Publishing, listing and withdrawing, as the hospital's staff asks for it."""

    def __init__(
        self,
        *,
        datasets: Datasets,
        publisher: Publisher,
        announcer: Announcer,
        consent_changed: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        """`consent_changed` stops what may no longer run."""
        self._datasets, self._publisher, self._announcer = datasets, publisher, announcer
        self._consent_changed, self._clock = consent_changed, clock
        # What is committed first is announced first, so the catalogue ends with what stands here.
        self._in_order = asyncio.Lock()
        self._changing: set[asyncio.Task[Any]] = set()

    async def publish(self, request: pb.PublishDatasetRequest) -> pb.PublishDatasetResponse:
        """The data set, stored and announced; or an error in words for its owner, and nothing stored."""
        actor, publication = current_actor(), parse_publication(request)
        known = await self._datasets.answered(
            actor=actor, message=request, answer_type=pb.PublishDatasetResponse
        )
        if known is not None:  # a retry reads no files, which may have moved since
            return known
        draft = await self._publisher.draft(publication)
        return await self._to_the_end(self._publish(request, draft, actor=actor))

    async def _publish(
        self, request: pb.PublishDatasetRequest, draft: Draft, *, actor: str
    ) -> pb.PublishDatasetResponse:
        done: list[Dataset] = []

        def work(shelf: Shelf) -> pb.PublishDatasetResponse:
            done[:] = [publish(shelf, draft.dataset, actor=actor, request_id=request.request_id)]
            return pb.PublishDatasetResponse(
                dataset=dataset_message(done[0]), identification=draft.identification.encode()
            )

        async with self._in_order:
            answer = await self._datasets.answer(
                actor=actor, message=request, answer_type=pb.PublishDatasetResponse, work=work
            )
            for dataset in done:
                self._announcer.dataset_published(dataset)
        for dataset in done:
            log.info(
                "dataset_published",
                dataset=dataset.name,
                version=dataset.version,
                disclosure=dataset.disclosure.value,
            )
            await self._consent_changed()
        return answer

    async def inspect(self, request: pb.InspectDatasetRequest) -> pb.InspectDatasetResponse:
        """What publishing would find; or an error in words for the owner. Nothing is kept."""
        found = await self._publisher.inspect(request.path)
        return pb.InspectDatasetResponse(
            images=found.images,
            patients=found.patients,
            images_per_class=found.images_per_class,
            content_hash=found.content_hash,
            schema=found.schema.encode(),
            identification=found.identification.encode(),
        )

    async def withdraw(self, request: pb.WithdrawDatasetRequest) -> pb.WithdrawDatasetResponse:
        """Out of the catalogue and out of every study; what runs on it is stopped. Raises NotFound."""
        return await self._to_the_end(self._withdraw(request))

    async def _withdraw(self, request: pb.WithdrawDatasetRequest) -> pb.WithdrawDatasetResponse:
        actor, done = current_actor(), list[Dataset]()

        def work(shelf: Shelf) -> pb.WithdrawDatasetResponse:
            now = self._clock.now()
            done[:] = [withdraw(shelf, request.name, actor=actor, request_id=request.request_id, at=now)]
            return pb.WithdrawDatasetResponse()

        async with self._in_order:
            answer = await self._datasets.answer(
                actor=actor, message=request, answer_type=pb.WithdrawDatasetResponse, work=work
            )
            for dataset in done:
                self._announcer.dataset_withdrawn(dataset.name)
        for dataset in done:
            log.info("dataset_withdrawn", dataset=dataset.name, version=dataset.version)
            await self._consent_changed()
        return answer

    async def _to_the_end(self, change: Coroutine[Any, Any, Answer]) -> Answer:
        """What changed takes effect though the caller hangs up meanwhile."""
        task = asyncio.create_task(change)
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        return await asyncio.shield(task)

    async def listed(self, request: pb.ListDatasetsRequest) -> pb.ListDatasetsResponse:
        """What is published, by name. A page's token is the last name on it."""
        if request.page_size > MAX_PAGE_SIZE:
            raise InvalidInput(f"A page has at most {MAX_PAGE_SIZE} data sets.")
        size = request.page_size or DEFAULT_PAGE_SIZE
        found = await self._datasets.datasets(after=request.page_token, limit=size + 1)
        page = found[:size]
        return pb.ListDatasetsResponse(
            datasets=[dataset_message(dataset) for dataset in page],
            next_page_token=page[-1].name if len(found) > size else "",
        )

    async def versions(self, request: pb.ListDatasetVersionsRequest) -> pb.ListDatasetVersionsResponse:
        """All that was ever published under a name, the newest first. Raises NotFound."""
        found = await self._datasets.versions(request.name)
        return pb.ListDatasetVersionsResponse(versions=[dataset_message(dataset) for dataset in found])


def parse_publication(request: pb.PublishDatasetRequest) -> Publication:
    """What is asked for. Raises InvalidInput before anything is read."""
    disclosure = _DISCLOSURES.get(request.disclosure)
    if disclosure is None:
        raise InvalidInput("Counts are disclosed exact, rounded or withheld. Choose one of them.")
    return Publication(
        name=request.name,
        path=request.path,
        description=request.description,
        tags=tuple(request.tags),
        licence=request.licence,
        disclosure=disclosure,
        mock_images=request.mock_images,
        dicomweb=request.dicomweb,
    )


def dataset_message(dataset: Dataset) -> pb.Dataset:
    """A version as its own hospital's staff sees it, exact numbers and path included."""
    disclosed = dataset.disclosed
    return pb.Dataset(
        name=dataset.name,
        description=dataset.description,
        tags=dataset.tags,
        path=dataset.path,
        images=dataset.images,
        patients=dataset.patients,
        images_per_class=dataset.images_per_class,
        content_hash=dataset.content_hash,
        published_at=_timestamp(dataset.published_at),
        version=dataset.version,
        licence=dataset.licence,
        disclosure=pb.CountDisclosure.Value(f"COUNT_DISCLOSURE_{dataset.disclosure.name}"),
        disclosed_images=disclosed.about_images,
        disclosed_counts={name: count.low for name, count in disclosed.images_per_class.items()},
        schema=dataset.schema,
        mock_recipe=dataset.mock_recipe,
        mock_hash=dataset.mock_hash,
        withdrawn_at=None if dataset.withdrawn_at is None else _timestamp(dataset.withdrawn_at),
    )


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
