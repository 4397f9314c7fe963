"""The audit trails of the services, as those may read them who are allowed to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from libs.cli.client.catalogue import describe_federation
from libs.core.errors import InvalidInput, NotFound
from libs.core.ids import PARTIES
from libs.rpc._generated.trefoil.audit.v1 import audit_pb2
from libs.rpc.channel import translated
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity

if TYPE_CHECKING:
    from libs.cli.client.session import Session

SOURCES = ("coordinator", "hospital", *(f"party-{index}" for index in PARTIES))


def identity_of(session: Session, source: str) -> Identity:
    """Whose trail `source` is. InvalidInput for anything but one of SOURCES."""
    if source == "coordinator":
        return COORDINATOR
    if source == "hospital":
        return Identity(Kind.HOSPITAL, session.profile.need_hospital().name)
    if source not in SOURCES:
        raise InvalidInput(f"There is no service {source!r}. Choose one of {', '.join(SOURCES)}.")
    return party_identity(int(source.removeprefix("party-")))


async def export_trail(session: Session, source: str, *, address: str | None) -> AsyncIterator[str]:
    """The lines of a service's trail, signed to their end. The service records that they were read.

    Without an `address`, that of the profile; the coordinator says where the parties are.
    """
    identity = identity_of(session, source)
    where = address or await _address(session, identity)
    stub = session.audit(identity, where)
    with translated():
        async for response in stub.ExportTrail(audit_pb2.ExportTrailRequest()):
            yield response.line.decode("utf-8")


async def _address(session: Session, identity: Identity) -> str:
    if identity.kind is Kind.HOSPITAL:
        return session.profile.need_hospital().address
    if identity.kind is Kind.COORDINATOR:
        return session.profile.need_coordinator().address
    for party in (await describe_federation(session)).parties:
        if party_identity(party.index) == identity:
            return party.endpoint.address
    raise NotFound(f"The coordinator does not know where {identity} is. Give its --address.")
