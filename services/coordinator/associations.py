"""Which hospitals belong to the federation: they ask by attaching, and the operator decides on their keys.

A certificate says who a hospital is; that it may take part is the operator's decision, about one public key.
Another key of the same hospital asks anew and changes nothing for the one that was approved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace

from libs.core.clock import Clock
from libs.core.errors import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied, TrefoilError
from libs.rpc.identity import Identity
from libs.runtime.logging import get_logger
from services.coordinator.attachments import Attachments
from services.coordinator.catalogue import Catalogue
from services.coordinator.descriptions import MAX_NAME, checked_text
from services.coordinator.gateway_ports import AnsweredCall, Association, AssociationStore
from services.coordinator.journal import Journal
from services.coordinator.paging import from_token, page_size, to_token
from services.coordinator.ports import Page
from services.coordinator.states import ASSOCIATION_TRANSITIONS, AssociationEvent, AssociationState
from services.coordinator.studies import MAX_REQUEST_ID, Person

log = get_logger(__name__)

MAX_REASON = 2000
MAX_PENDING_KEYS = 4
"""Keys of one hospital that may wait for the operator at the same time."""

SETTINGS = "the coordinator's settings"
_LIVE = (AssociationState.APPROVED, AssociationState.PENDING)


@dataclass(frozen=True)
class Decision:
    """What the operator wants, about exactly one key."""

    request_id: str
    hospital: str
    key_sha256: str
    event: AssociationEvent
    reason: str


class Associations:
    """Admits hospitals, and lets the operator decide."""

    def __init__(
        self,
        *,
        store: AssociationStore,
        catalogue: Catalogue,
        attachments: Attachments,
        journal: Journal,
        clock: Clock,
        preapproved: Collection[str],
        max_pending: int,
    ) -> None:
        """`preapproved`: identities whose first key is approved when it is first seen."""
        self._store, self._catalogue, self._attachments = store, catalogue, attachments
        self._journal, self._clock = journal, clock
        self._preapproved, self._max_pending = frozenset(preapproved), max_pending

    # ------------------------------------------------------------ hospitals

    def admit(self, hospital: Identity, key_sha256: str, *, name: str) -> None:
        """Returns if the hospital may attach with this key. A key that was not seen before waits from now on.

        FailedPrecondition while it waits for the operator, or too many others do; PermissionDenied once it
        was denied or revoked.
        """
        shown = checked_text("hospital's name", name or hospital.name, limit=MAX_NAME)
        known = self._store.association(hospital.uri, key_sha256)
        association = known or self._new(hospital, key_sha256, shown)
        state = ASSOCIATION_TRANSITIONS.get((association.state, AssociationEvent.ASKED), association.state)
        if state is not association.state:
            association = replace(association, state=state, requested_at=self._clock.now())
        if state in _LIVE:
            association = replace(association, name=shown)
        if association != known:
            self._store.save_associations([association])
            self._catalogue.membership_changed()
            log.info("association_asked", hospital=hospital.uri, key_sha256=key_sha256, state=state.value)
        if state is not AssociationState.APPROVED:
            raise _refusal(association)

    def leave(self, hospital: Identity, key_sha256: str) -> None:
        """The hospital leaves by itself: its datasets leave the catalogue, its stream ends. Nothing changes
        unless this key is the approved one.
        """
        association = self._store.association(hospital.uri, key_sha256)
        if association is None or association.state is not AssociationState.APPROVED:
            return
        left = self._decided(association, AssociationEvent.LEFT, by=hospital.uri, reason="")
        self._store.save_associations([left])
        self._gone(hospital.uri, None, why="The hospital left the federation.")
        log.info("hospital_left", hospital=hospital.uri)

    def _new(self, hospital: Identity, key_sha256: str, name: str) -> Association:
        """A key that was never seen. Certificates come from the federation's CA, and even so nobody fills the
        table: what waits is bounded, altogether and for each hospital, and the rest the operator decided.
        """
        others = self._store.associations_of(hospital.uri)
        now = self._clock.now()
        asked = Association(hospital.uri, key_sha256, name, AssociationState.PENDING, now)
        if hospital.uri in self._preapproved and not others:
            reason = "Listed as preapproved; bound to the first key that was seen."
            return asked.decided(AssociationState.APPROVED, at=now, by=SETTINGS, reason=reason)
        waiting = sum(other.state is AssociationState.PENDING for other in others)
        if waiting >= MAX_PENDING_KEYS or self._store.pending_associations() >= self._max_pending:
            log.warning("association_not_taken", hospital=hospital.uri, key_sha256=key_sha256)
            raise FailedPrecondition(
                "Too many requests to join wait for the federation's operator. Ask the operator to decide on "
                "those first: trefoil node list --state pending"
            )
        return asked

    # ------------------------------------------------------------ the operator

    def page(self, state: AssociationState | None, *, size: int, token: str) -> Page[Association]:
        """Associations in the order of asking. The page's key is the next token."""
        listing = ("associations", state)
        after = from_token(token, listing=listing)
        page = self._store.page_of_associations(state, after=after, limit=page_size(size))
        return Page(page.items, to_token(page.next_key, listing=listing))

    def decide(self, operator: Person, decision: Decision) -> Association:
        """Let a decision take effect, at once; the same request again changes nothing.

        NotFound for a hospital that never asked, FailedPrecondition for another key than it asked with or a
        decision that this state does not allow, AlreadyExists for another decision under this request id.
        """
        call = _call_of(operator, decision)
        answered = self._store.answered(call.caller, call.request_id)
        if answered not in {None, call}:
            raise AlreadyExists("Another decision had this request id. Use a new request id for a new one.")
        before = self._require(decision)
        if answered is not None:
            return before
        reason = checked_text("reason", decision.reason, limit=MAX_REASON, empty=True)
        after = self._decided(before, decision.event, by=operator.subject, reason=reason)
        replaced = self._replaced_by(after)
        self._store.save_associations([after, *replaced], call=call)
        log.info(
            "association_decided",
            hospital=after.hospital,
            key_sha256=after.key_sha256,
            state=after.state.value,
            decided_by=operator.subject,
        )
        if after.state is AssociationState.REVOKED:
            self._gone(after.hospital, _refusal(after), why="The operator removed the hospital.")
        for old in replaced:
            self._attachments.expel(old.hospital, _refusal(old), key_sha256=old.key_sha256)
        self._catalogue.membership_changed()
        return after

    def _require(self, decision: Decision) -> Association:
        association = self._store.association(decision.hospital, decision.key_sha256)
        if association is not None:
            return association
        if not self._store.associations_of(decision.hospital):
            raise NotFound(
                f"No hospital {decision.hospital!r} has asked to join. See who has: trefoil node list"
            )
        raise FailedPrecondition(
            f"{decision.hospital} has not asked with that key. Compare the key's SHA-256 with what the "
            "hospital reads out to you, and decide on the key that is listed."
        )

    def _decided(
        self, association: Association, event: AssociationEvent, *, by: str, reason: str
    ) -> Association:
        state = ASSOCIATION_TRANSITIONS.get((association.state, event))
        if state is None:
            raise FailedPrecondition(
                f"The association of {association.hospital} is {association.state.value}, so it cannot be "
                f"{event.value}. See its state: trefoil node list"
            )
        if state is association.state:
            return association
        return association.decided(state, at=self._clock.now(), by=by, reason=reason)

    def _replaced_by(self, after: Association) -> list[Association]:
        """The hospital's former key, when a new one is approved: a hospital takes part with one key."""
        if after.state is not AssociationState.APPROVED:
            return []
        reason = "Another key of this hospital was approved."
        return [
            self._decided(other, AssociationEvent.REVOKED, by=after.decided_by, reason=reason)
            for other in self._store.associations_of(after.hospital)
            if other.state is AssociationState.APPROVED and other.key_sha256 != after.key_sha256
        ]

    def _gone(self, hospital: str, error: TrefoilError | None, *, why: str) -> None:
        """End the stream, and go on without the hospital wherever it takes part, unless another key of it is
        approved.
        """
        self._catalogue.membership_changed()
        states = [other.state for other in self._store.associations_of(hospital)]
        if AssociationState.APPROVED not in states:
            self._attachments.expel(hospital, error)
            self._journal.withdraw_hospital(hospital, reason=why)


def _call_of(operator: Person, decision: Decision) -> AnsweredCall:
    request_id = checked_text("request id", decision.request_id, limit=MAX_REQUEST_ID)
    content = repr((decision.hospital, decision.key_sha256, decision.event.value, decision.reason))
    caller = f"{operator.identity} {operator.subject}"
    return AnsweredCall(
        # Two texts of any length in one column: a hash keeps it short and its callers apart.
        hashlib.sha256(caller.encode()).hexdigest(),
        request_id,
        hashlib.sha256(content.encode()).hexdigest(),
    )


def _refusal(association: Association) -> TrefoilError:
    if association.state is AssociationState.PENDING:
        return FailedPrecondition(
            "An operator of the federation has to approve this hospital first. Read the SHA-256 of your key "
            f"to the operator: {association.key_sha256}"
        )
    said = f" The operator says: {association.reason}" if association.reason else ""
    return PermissionDenied(
        f"The operator of the federation has {association.state.value} this hospital's key.{said} Talk to "
        "the operator; attaching again does not help."
    )
