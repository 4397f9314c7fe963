"""Which hospitals asked to join, and the operator's decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libs.cli.client.pages import PAGE_SIZE, all_pages
from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.core.errors import InvalidInput, NotFound
from libs.core.ids import new_id
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.identity import Identity, Kind

if TYPE_CHECKING:
    from libs.cli.client.session import Session

STATE_NAMES = {
    coordinator_pb2.ASSOCIATION_STATE_PENDING: "pending",
    coordinator_pb2.ASSOCIATION_STATE_APPROVED: "approved",
    coordinator_pb2.ASSOCIATION_STATE_DENIED: "denied",
    coordinator_pb2.ASSOCIATION_STATE_REVOKED: "revoked",
    coordinator_pb2.ASSOCIATION_STATE_LEFT: "left",
}
_STATES = {name: state for state, name in STATE_NAMES.items()}


@plain_errors
async def list_associations(session: Session, *, state: str = "") -> list[coordinator_pb2.Association]:
    """Every key with which a hospital asked, in the order of asking; `state` picks those in one state.

    InvalidInput for a state that does not exist.
    """
    if state and state not in _STATES:
        raise InvalidInput(f"{state!r} is not a state; use {', '.join(_STATES)}.")

    async def fetch(token: str) -> coordinator_pb2.ListAssociationsResponse:
        request = coordinator_pb2.ListAssociationsRequest(
            state=_STATES.get(state, coordinator_pb2.ASSOCIATION_STATE_UNSPECIFIED),
            page_size=PAGE_SIZE,
            page_token=token,
        )
        return await session.coordinator.ListAssociations(request, timeout=CALL_TIMEOUT_S)

    return await all_pages(fetch, lambda page: page.associations)


@plain_errors
async def decide_association(
    session: Session, *, hospital: str, key_sha256: str, state: str, reason: str = "", request_id: str = ""
) -> coordinator_pb2.Association:
    """Approve, deny or revoke exactly this key. The same `request_id` does nothing twice."""
    request = coordinator_pb2.DecideAssociationRequest(
        request_id=request_id or new_id("request"),
        hospital_identity=identity_of(hospital),
        key_sha256=key_sha256,
        state=_STATES[state],
        reason=reason,
    )
    return (await session.coordinator.DecideAssociation(request, timeout=CALL_TIMEOUT_S)).association


def identity_of(hospital: str) -> str:
    """`north` and `spiffe://trefoil.local/hospital/north` name the same. InvalidInput if it names nobody."""
    return hospital if "://" in hospital else Identity(Kind.HOSPITAL, hospital).uri


async def the_association(
    session: Session, *, hospital: str, states: tuple[str, ...]
) -> coordinator_pb2.Association:
    """The hospital's one association in one of these states.

    NotFound if there is none, InvalidInput if there are several: its keys have to be told apart then.
    """
    uri = identity_of(hospital)
    found = [
        association
        for association in await list_associations(session)
        if association.hospital_identity == uri and STATE_NAMES.get(association.state) in states
    ]
    if not found:
        raise NotFound(f"{hospital} has no key that is {' or '.join(states)}. See: trefoil node list")
    if len(found) > 1:
        keys = ", ".join(association.key_sha256 for association in found)
        raise InvalidInput(f"{hospital} asked with several keys; choose one with --key: {keys}")
    return found[0]
