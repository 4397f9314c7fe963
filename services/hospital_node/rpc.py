"""HospitalService: what the hospital's own staff can ask of their node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2 as pb
from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import HospitalServiceServicer
from libs.rpc.caller import current_actor
from libs.rpc.identity import Identity
from services.hospital_node.dataset_rpc import DatasetCalls
from services.hospital_node.membership import Membership


class HospitalService(HospitalServiceServicer):
    """Who may call what is in the access policy: staff of this hospital with the role owner."""

    def __init__(
        self,
        *,
        identity: Identity,
        datasets: DatasetCalls,
        attached: Callable[[], bool],
        activity: Callable[[], str],
        consent_changed: Callable[[], Awaitable[None]],
        membership: Membership,
        refusal: Callable[[], str],
    ) -> None:
        """`consent_changed` stops what may no longer run; every way to withdraw consent leads through it."""
        self._identity, self._attached, self._activity = identity, attached, activity
        self._datasets = datasets
        self._consent_changed = consent_changed
        self._membership, self._refusal = membership, refusal

    async def DescribeNode(self, request: pb.DescribeNodeRequest, context: Any) -> pb.DescribeNodeResponse:
        """Who this node is and what it is doing."""
        return pb.DescribeNodeResponse(
            name=self._identity.name,
            identity=self._identity.uri,
            attached_to_coordinator=self._attached(),
            activity=self._activity(),
            in_federation=await self._membership.takes_part(),
            refusal=self._refusal(),
            version=version("trefoil"),
        )

    async def JoinFederation(
        self, request: pb.JoinFederationRequest, context: Any
    ) -> pb.JoinFederationResponse:
        """Take part, once the federation's operator has approved."""
        await self._membership.join(request_id=request.request_id, actor=current_actor())
        return pb.JoinFederationResponse()

    async def LeaveFederation(
        self, request: pb.LeaveFederationRequest, context: Any
    ) -> pb.LeaveFederationResponse:
        """Take part no longer. What runs is stopped, and the coordinator is told."""
        await self._membership.leave(request_id=request.request_id, actor=current_actor())
        return pb.LeaveFederationResponse()

    async def PublishDataset(
        self, request: pb.PublishDatasetRequest, context: Any
    ) -> pb.PublishDatasetResponse:
        """Check files on this node's disk and put their description in the catalogue."""
        return await self._datasets.publish(request)

    async def InspectDataset(
        self, request: pb.InspectDatasetRequest, context: Any
    ) -> pb.InspectDatasetResponse:
        """Check files on this node's disk, for the owner's eyes only."""
        return await self._datasets.inspect(request)

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Any) -> pb.ListDatasetsResponse:
        """What is published, in pages."""
        return await self._datasets.listed(request)

    async def ListDatasetVersions(
        self, request: pb.ListDatasetVersionsRequest, context: Any
    ) -> pb.ListDatasetVersionsResponse:
        """All that was ever published under a name."""
        return await self._datasets.versions(request)

    async def WithdrawDataset(
        self, request: pb.WithdrawDatasetRequest, context: Any
    ) -> pb.WithdrawDatasetResponse:
        """Take it out of the catalogue and out of every study, and stop what runs on it."""
        return await self._datasets.withdraw(request)
