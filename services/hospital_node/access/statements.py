"""What scientists signed, held against what the coordinator passed on. Nothing else of it is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from libs.core.errors import InvalidInput
from libs.fl.training_plan import TrainingPlan
from libs.rpc._generated.trefoil.types.v1.types_pb2 import SignedStatement
from libs.rpc.identity import Identity, Kind
from libs.rpc.statements import Statement, verify_statement
from services.hospital_node.access.costs import parse_cost
from services.hospital_node.access.domain import AccessRequest, Origin, Purpose, Study
from services.hospital_node.access.rules import MAX_USES

MAX_REASON_CHARACTERS = 2000
MAX_ID_CHARACTERS = 200


@dataclass(frozen=True)
class Proposal:
    """A study as the coordinator proposes it, before any check."""

    study_id: str
    title: str
    requested_by: str
    dataset_name: str
    plan_hash: str
    training_plan: bytes
    hospitals: tuple[str, ...]
    readers: tuple[str, ...]
    statement: SignedStatement


@dataclass(frozen=True)
class Asked:
    """A request for access as the coordinator passes it on, before any check."""

    request_id: str
    statement: SignedStatement
    training_plan: bytes
    requested_by: str

    @property
    def statement_hash(self) -> str:
        """SHA-256 of the words that were signed, hex."""
        return hashlib.sha256(self.statement.payload).hexdigest()


class StatementReader:
    """Reads statements made to one hospital. `authorities` gives the CA certificates it trusts, in PEM."""

    def __init__(self, *, hospital: Identity, authorities: Callable[[], bytes]) -> None:
        self._hospital, self._authorities = hospital, authorities

    def study(self, proposal: Proposal, *, now: datetime) -> Study:
        """The study, if its scientist signed exactly this title, plan and set of data sets.

        The hospitals are those of the data sets, and the sums go to nobody but them and the signer: a
        coordinator can add neither. InvalidInput otherwise.
        """
        said = self._verified(proposal.statement, kind="study", now=now)
        plan = checked_plan(proposal.training_plan, plan_hash=proposal.plan_hash)
        dataset_ids = said.texts("dataset_ids")
        hospitals = {_hospital_of(dataset_id) for dataset_id in dataset_ids}
        same = (
            said.text("title") == proposal.title
            and said.text("plan_hash") == proposal.plan_hash
            and f"{self._hospital.name}/{proposal.dataset_name}" in dataset_ids
            and hospitals == set(proposal.hospitals)
        )
        if not same:
            raise InvalidInput(
                "The study is not the one that its scientist signed: title, plan, data sets or hospitals "
                "differ."
            )
        if not set(proposal.readers) <= {said.signer.uri, *hospitals}:
            raise InvalidInput("The sums of a study go to its scientist and its hospitals only.")
        if len(hospitals) < plan.quorum:
            raise InvalidInput(
                f"The plan's quorum is {plan.quorum}, but the study has {len(hospitals)} hospitals. "
                "Choose more data sets."
            )
        signed = hashlib.sha256(proposal.statement.payload).hexdigest()
        return Study(
            study_id=proposal.study_id,
            statement_id=f"{said.signer.uri} {signed}",
            title=proposal.title,
            requester=said.signer.uri,
            requested_by=proposal.requested_by,
            dataset_name=proposal.dataset_name,
            content_hash="",
            plan_hash=proposal.plan_hash,
            training_plan=proposal.training_plan,
            hospitals=proposal.hospitals,
            readers=proposal.readers,
            received_at=now,
        )

    def request(self, asked: Asked, *, now: datetime) -> AccessRequest:
        """The request, if somebody of this federation signed it for this hospital. InvalidInput otherwise."""
        said = self._verified(asked.statement, kind="access-request", now=now)
        if said.text("request_id") != asked.request_id:
            raise InvalidInput("The request has another id than the one that was signed.")
        hospital, _, dataset_name = said.text("dataset_id").partition("/")
        if hospital != self._hospital.name or not dataset_name:
            raise InvalidInput("The request is for a data set of another hospital.")
        purpose = _purpose(said.text("purpose"))
        plan_hash, model_id = "", ""
        if purpose is Purpose.TRAINING:
            plan_hash = said.text("plan_hash")
            checked_plan(asked.training_plan, plan_hash=plan_hash)
        else:
            model_id = said.text("model_id")
        uses = said.number("uses")
        if not 1 <= uses <= MAX_USES:
            raise InvalidInput(f"A request asks for 1 to {MAX_USES} uses.")
        if len(said.text("reason")) > MAX_REASON_CHARACTERS or len(model_id) > MAX_ID_CHARACTERS:
            raise InvalidInput(f"The reason has at most {MAX_REASON_CHARACTERS} characters.")
        return AccessRequest(
            request_id=asked.request_id,
            origin=Origin.COORDINATOR,
            purpose=purpose,
            dataset_name=dataset_name,
            content_hash="",
            requester=said.signer.uri,
            requested_by=asked.requested_by,
            reason=said.text("reason"),
            asked=parse_cost(epsilon=said.text("epsilon"), delta=said.text("delta")),
            uses_asked=uses,
            received_at=now,
            plan_hash=plan_hash,
            training_plan=asked.training_plan if purpose is Purpose.TRAINING else b"",
            model_id=model_id,
            statement_hash=asked.statement_hash,
        )

    def _verified(self, statement: SignedStatement, *, kind: str, now: datetime) -> Statement:
        said = verify_statement(statement, kind=kind, ca=self._authorities(), now=now)
        if said.signer.kind is not Kind.CLIENT:
            raise InvalidInput("Only people ask for data: a service's certificate cannot sign for them.")
        return said


def checked_plan(training_plan: bytes, *, plan_hash: str) -> TrainingPlan:
    """The plan, in its canonical form and of that hash. InvalidInput otherwise."""
    plan = TrainingPlan.from_json(training_plan)
    if plan.canonical_json() != training_plan or plan.hash != plan_hash:
        raise InvalidInput(
            "The training plan does not match its hash. Propose the plan in its canonical form."
        )
    return plan


def _hospital_of(dataset_id: str) -> str:
    name, _, rest = dataset_id.partition("/")
    if not rest:
        raise InvalidInput("A data set's id is its hospital's name, a slash, and its own name.")
    return Identity(Kind.HOSPITAL, name).uri


def _purpose(text: str) -> Purpose:
    if text not in (Purpose.TRAINING.value, Purpose.PREDICTION.value):
        raise InvalidInput("A request through the coordinator is for training or prediction.")
    return Purpose(text)
