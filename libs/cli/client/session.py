"""Open channels of one person, closed together."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import grpc

from libs.cli.client.accounts import kept_fresh
from libs.cli.client.profile import Profile, load_profile
from libs.cli.client.timeouts import CALL_TIMEOUT_S
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.audit.v1.audit_pb2_grpc import AuditServiceStub
from libs.rpc._generated.trefoil.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from libs.rpc._generated.trefoil.hospital.v1.access_pb2_grpc import AccessServiceStub
from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import AccountServiceStub
from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import HospitalServiceStub
from libs.rpc.channel import open_channel, translated
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity
from libs.rpc.predict_client import PredictClient

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.audit.v1.audit_pb2_grpc import AuditServiceAsyncStub
    from libs.rpc._generated.trefoil.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceAsyncStub
    from libs.rpc._generated.trefoil.hospital.v1.access_pb2_grpc import AccessServiceAsyncStub
    from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import AccountServiceAsyncStub
    from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import HospitalServiceAsyncStub
    from libs.rpc._generated.trefoil.types.v1.types_pb2 import Party

__all__ = ["CALL_TIMEOUT_S", "Session", "open_session", "plain_errors", "run"]

T = TypeVar("T")
Arguments = ParamSpec("Arguments")


def plain_errors(
    function: Callable[Arguments, Coroutine[Any, Any, T]],
) -> Callable[Arguments, Coroutine[Any, Any, T]]:
    """Decorates a client function: failed calls raise the errors of `libs/core/errors.py`."""

    @functools.wraps(function)
    async def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> T:
        with translated():
            return await function(*args, **kwargs)

    return wrapped


class Session:
    """The services as one person sees them. Channels open on first use and stay open."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._predictions: PredictClient | None = None

    @property
    def coordinator(self) -> CoordinatorServiceAsyncStub:
        """The coordinator."""
        section = self.profile.need_coordinator()
        channel = self._channel(section.address, COORDINATOR, section.token)
        return CoordinatorServiceStub(channel)

    @property
    def hospital(self) -> HospitalServiceAsyncStub:
        """The hospital node whose staff this is."""
        section = self.profile.need_hospital()
        return HospitalServiceStub(
            self._channel(section.address, Identity(Kind.HOSPITAL, section.name), section.token_file)
        )

    @property
    def accounts(self) -> AccountServiceAsyncStub:
        """The accounts of that node."""
        section = self.profile.need_hospital()
        return AccountServiceStub(
            self._channel(section.address, Identity(Kind.HOSPITAL, section.name), section.token_file)
        )

    def audit(self, service: Identity, address: str) -> AuditServiceAsyncStub:
        """The audit trail of a service; the staff's token for their hospital, else that of the federation."""
        own = service.kind is Kind.HOSPITAL
        token = self.profile.need_hospital().token_file if own else self.profile.need_coordinator().token
        return AuditServiceStub(self._channel(address, service, token))

    @property
    def access(self) -> AccessServiceAsyncStub:
        """Who may use the data of the hospital whose staff this is."""
        section = self.profile.need_hospital()
        return AccessServiceStub(
            self._channel(section.address, Identity(Kind.HOSPITAL, section.name), section.token_file)
        )

    @property
    def predictions(self) -> PredictClient:
        """Encrypted predictions with the parties."""
        if self._predictions is None:
            token = self.profile.need_coordinator().token
            self._predictions = PredictClient(tls=self.profile.tls.files, token_file=token)
        return self._predictions

    def party_channels(self, parties: Iterable[Party]) -> dict[PartyId, grpc.aio.Channel]:
        """Channels to the parties at the addresses that the coordinator gave; certificates must name them."""
        token = self.profile.need_coordinator().token
        return {
            PartyId(party.index): self._channel(party.endpoint.address, party_identity(party.index), token)
            for party in parties
        }

    def _channel(self, address: str, server: Identity, token: Path) -> grpc.aio.Channel:
        key = f"{server.uri}@{address}"
        if key not in self._channels:
            self._channels[key] = open_channel(
                address=address, server=server, tls=self.profile.tls.files, token_file=token
            )
        return self._channels[key]

    async def close(self) -> None:
        """Close every channel."""
        if self._predictions is not None:
            await self._predictions.close()
        await asyncio.gather(*[channel.close() for channel in self._channels.values()])
        self._channels.clear()


@asynccontextmanager
async def open_session(profile: Path) -> AsyncIterator[Session]:
    """A session for the profile in a file. A login that the profile names is kept fresh."""
    loaded = load_profile(profile)
    session = Session(loaded)
    try:
        async with kept_fresh(loaded):
            with translated():  # for calls made on a stub directly
                yield session
    finally:
        await session.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end; Ctrl-C cancels it and closes its channels."""
    return asyncio.run(work)
