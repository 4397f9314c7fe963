"""HospitalService: what the hospital's own staff can ask of their node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2 as pb
from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import HospitalServiceServicer
from libs.rpc.identity import Identity
from services.hospital_node.datasets import Publisher
from services.hospital_node.domain import Dataset
from services.hospital_node.ports import Store

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


class HospitalService(HospitalServiceServicer):
    """Who may call what is in the access policy: staff of this hospital with the role owner."""

    def __init__(
        self,
        *,
        identity: Identity,
        store: Store,
        publisher: Publisher,
        attached: Callable[[], bool],
        activity: Callable[[], str],
        consent_changed: Callable[[], Awaitable[None]],
    ) -> None:
        """`consent_changed` stops what may no longer run; every way to withdraw consent leads through it."""
        self._identity, self._attached, self._activity = identity, attached, activity
        self._store, self._publisher = store, publisher
        self._consent_changed = consent_changed

    async def DescribeNode(self, request: pb.DescribeNodeRequest, context: Any) -> pb.DescribeNodeResponse:
        """Who this node is and what it is doing."""
        return pb.DescribeNodeResponse(
            name=self._identity.name,
            identity=self._identity.uri,
            attached_to_coordinator=self._attached(),
            activity=self._activity(),
        )

    async def PublishDataset(
        self, request: pb.PublishDatasetRequest, context: Any
    ) -> pb.PublishDatasetResponse:
        """Check files on this node's disk and put their description in the catalogue."""
        dataset = await self._publisher.publish(
            name=request.name, description=request.description, tags=tuple(request.tags), path=request.path
        )
        return pb.PublishDatasetResponse(dataset=_dataset(dataset))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Any) -> pb.ListDatasetsResponse:
        """By name. A page's token is the last name on it."""
        if request.page_size > MAX_PAGE_SIZE:
            raise InvalidInput(f"A page has at most {MAX_PAGE_SIZE} data sets.")
        size = request.page_size or DEFAULT_PAGE_SIZE
        found = await self._store.datasets(after=request.page_token, limit=size + 1)
        page = found[:size]
        return pb.ListDatasetsResponse(
            datasets=[_dataset(dataset) for dataset in page],
            next_page_token=page[-1].name if len(found) > size else "",
        )

    async def WithdrawDataset(
        self, request: pb.WithdrawDatasetRequest, context: Any
    ) -> pb.WithdrawDatasetResponse:
        """Take it out of the catalogue and out of every study, and stop what runs on it."""
        await self._publisher.withdraw(request.name)
        await self._consent_changed()
        return pb.WithdrawDatasetResponse()


def _dataset(dataset: Dataset) -> pb.Dataset:
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
    )


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
