"""Requests for access: taken from scientists and clinicians, passed on to hospitals, which decide."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound
from libs.fl.training_plan import TrainingPlan
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.identity import Identity
from libs.rpc.statements import Statement
from libs.runtime.logging import get_logger
from services.coordinator.attachments import Attachments
from services.coordinator.catalogue import Catalogue
from services.coordinator.descriptions import checked_text
from services.coordinator.gateway_ports import AccessRequest, AccessStore, Grant
from services.coordinator.orders import access_request_order
from services.coordinator.paging import from_token, page_size, to_token
from services.coordinator.ports import Page
from services.coordinator.statements import Statements
from services.coordinator.states import ACCESS_TRANSITIONS, AccessState
from services.coordinator.studies import MAX_REQUEST_ID, Person
from services.coordinator.wire_values import moment_of, signed_of

log = get_logger(__name__)

KIND = "access-request"
TRAINING, PREDICTION = "training", "prediction"
MAX_OPEN_REQUESTS = 1000
"""Undecided requests of one person."""
MAX_USES = 10**6
MAX_REASON = 2000
MAX_MODEL_ID = 200

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,40})?", re.ASCII)
_STATES: Mapping[int, AccessState] = {
    coordinator_pb2.AccessState.Value(f"ACCESS_STATE_{state.name}"): state for state in AccessState
}


class AccessRequests:
    """Takes, delivers and lists them."""

    def __init__(
        self,
        *,
        store: AccessStore,
        catalogue: Catalogue,
        attachments: Attachments,
        statements: Statements,
    ) -> None:
        self._store, self._catalogue = store, catalogue
        self._attachments, self._statements = attachments, statements

    def ask(self, person: Person, message: coordinator_pb2.RequestAccessRequest) -> AccessRequest:
        """The stored request, which its hospital is told at once or when it is back.

        The same request id gives the same request. InvalidInput for a wrong field or signature,
        PermissionDenied for somebody else's words, NotFound for an unknown dataset, AlreadyExists for other
        words under this id, FailedPrecondition when too many are undecided.
        """
        stated = self._statements.verified(message.statement, kind=KIND, identity=person.identity)
        asked = replace(
            self._read(stated, message),
            requester=person.identity,
            requested_by=person.subject,
            statement=signed_of(message.statement),
        )
        existing = self._store.access_request(asked.request_id)
        if existing is None:
            asked = replace(asked, hospital=self._hospital_of(asked))
            if self._store.open_requests_of(person.identity, person.subject) >= MAX_OPEN_REQUESTS:
                raise FailedPrecondition(
                    f"{MAX_OPEN_REQUESTS} of your requests are undecided. Wait for their hospitals first."
                )
            existing = self._store.add_access_request(asked)
            log.info(
                "access_requested",
                request_id=asked.request_id,
                dataset_id=asked.dataset_id,
                hospital=asked.hospital,
                purpose=asked.purpose,
                plan_hash=asked.plan_hash,
            )
        if _content(existing) != _content(asked):
            raise AlreadyExists("Another request has this id. Use a new request id for a new request.")
        if existing.grant.state is AccessState.PENDING:
            self._attachments.push(existing.hospital, access_request_order(existing))
        return self._store.access_request(existing.request_id) or existing

    def page(self, owner: Person | None, *, size: int, token: str) -> Page[AccessRequest]:
        """The requests of one person, or all. The page's key is the next token."""
        key = None if owner is None else (owner.identity, owner.subject)
        listing = ("access-requests", key)
        after = from_token(token, listing=listing)
        page = self._store.page_of_access_requests(key, after=after, limit=page_size(size))
        return Page(page.items, to_token(page.next_key, listing=listing))

    def deliver(self, hospital: str) -> None:
        """Tell a hospital that attached everything it has not decided yet."""
        for request in self._store.undecided_access_requests(hospital):
            self._attachments.push(hospital, access_request_order(request))

    def was_delivered(self, request_id: str) -> None:
        """The hospital's stream has carried it."""
        self._store.mark_delivered(request_id)

    def decided(self, hospital: Identity, decision: coordinator_pb2.AccessDecision) -> None:
        """A hospital says what became of a request of its own. What was final stays as it was."""
        request = self._store.access_request(decision.request_id)
        state = _STATES.get(decision.state)
        if request is None or request.hospital != hospital.uri or state is None:
            raise InvalidInput("The decision names no state, or no request that this hospital has.")
        if (request.grant.state, state) not in ACCESS_TRANSITIONS:
            return
        has_end = decision.HasField("expires_at")
        grant = Grant(
            state=state,
            reason=checked_text("reason", decision.reason, limit=MAX_REASON, empty=True),
            epsilon=_cost("epsilon granted", decision.granted.epsilon, infinite=True, empty=True),
            delta=_cost("delta granted", decision.granted.delta, empty=True),
            uses=decision.uses,
            expires_at=moment_of(decision.expires_at) if has_end else None,
        )
        self._store.save_grant(request.request_id, grant)
        log.info("access_decided", request_id=request.request_id, hospital=hospital.uri, state=state.value)

    def _hospital_of(self, asked: AccessRequest) -> str:
        found = self._catalogue.dataset(asked.dataset_id)
        if found is None:
            raise NotFound(f"There is no dataset {asked.dataset_id!r}. Search the catalogue for names.")
        return found.dataset.hospital

    def _read(self, stated: Statement, message: coordinator_pb2.RequestAccessRequest) -> AccessRequest:
        """What the statement says, checked; who says it is not in it."""
        purpose = stated.text("purpose")
        if purpose not in (TRAINING, PREDICTION):
            raise InvalidInput(f"Access is asked for {TRAINING} or {PREDICTION}, not for {purpose[:40]!r}.")
        uses = stated.number("uses")
        if not 1 <= uses <= MAX_USES:
            raise InvalidInput(f"A request asks for 1 to {MAX_USES} uses.")
        checked_text("reason", stated.text("reason"), limit=MAX_REASON)
        training = purpose == TRAINING
        return AccessRequest(
            request_id=checked_text("request id", stated.text("request_id"), limit=MAX_REQUEST_ID),
            requester="",
            requested_by="",
            requested_at=_moment(stated.text("requested_at")),
            hospital="",
            dataset_id=stated.text("dataset_id"),
            purpose=purpose,
            plan_hash=_plan_hash(stated, message.training_plan) if training else "",
            model_id="" if training else _model_id(stated, message.training_plan),
            epsilon=_cost("epsilon", stated.text("epsilon"), infinite=True),
            delta=_cost("delta", stated.text("delta")),
            uses=uses,
            training_plan=message.training_plan if training else b"",
            statement=signed_of(message.statement),
        )


def _content(request: AccessRequest) -> object:
    """What makes two requests the same. A repetition is signed anew, a moment later."""
    words = {**json.loads(request.statement.payload), "requested_at": ""}
    return request.requester, request.requested_by, request.training_plan, words


def _plan_hash(stated: Statement, plan_json: bytes) -> str:
    """The plan's hash, if the plan beside the statement is the one that was signed."""
    plan = TrainingPlan.from_json(plan_json)
    if plan.canonical_json() != plan_json or stated.text("plan_hash") != plan.hash:
        raise InvalidInput(
            "The training plan is not the one whose hash was signed, or not canonical. Send the plan itself."
        )
    return plan.hash


def _model_id(stated: Statement, plan_json: bytes) -> str:
    if plan_json:
        raise InvalidInput("A request for predictions names a model and carries no training plan.")
    return checked_text("model", stated.text("model_id"), limit=MAX_MODEL_ID)


def _cost(what: str, text: str, *, infinite: bool = False, empty: bool = False) -> str:
    """Exact decimal text of a number from 0 on. InvalidInput for anything else."""
    if not ((empty and not text) or (infinite and text == "inf") or _DECIMAL.fullmatch(text)):
        raise InvalidInput(f"The {what} is a number from 0 on in plain decimals, for example 0.00001.")
    return text


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput("The field requested_at is a moment in ISO 8601 with its zone.") from error
    if moment.tzinfo is None:
        raise InvalidInput("The field requested_at is a moment in ISO 8601 with its zone.")
    return moment.astimezone(UTC)
