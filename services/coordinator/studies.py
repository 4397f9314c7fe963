"""What scientists do with studies: create, start, look at, cancel."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from libs.core.clock import Clock
from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput, PermissionDenied
from libs.fl.metrics import MAX_HOSPITALS
from libs.fl.model_access import version_readers
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import Ring
from libs.rpc._generated.trefoil.types.v1.types_pb2 import SignedStatement
from services.coordinator.catalogue import Catalogue
from services.coordinator.descriptions import checked_text
from services.coordinator.domain import Member, Study, training_model_id
from services.coordinator.journal import Journal
from services.coordinator.paging import from_token, page_size, to_token
from services.coordinator.ports import Compiler, ModelRegistration, Page, Parties, Repository
from services.coordinator.statements import Statements
from services.coordinator.states import StudyEvent, StudyState
from services.coordinator.wire_values import signed_of

KIND = "study"
MAX_TITLE = 200
MAX_REQUEST_ID = 128


@dataclass(frozen=True)
class Person:
    """Who asks: the certificate's identity and the subject of the token."""

    identity: str
    subject: str


@dataclass(frozen=True)
class StudyRequest:
    """What a scientist asks for."""

    request_id: str
    title: str
    training_plan: bytes
    dataset_ids: tuple[str, ...]
    parameters: int
    statement: SignedStatement


class Studies:
    """The scientist's side of studies. `on_created` is told of every new one."""

    def __init__(
        self,
        *,
        repository: Repository,
        journal: Journal,
        catalogue: Catalogue,
        parties: Parties,
        compiler: Compiler,
        statements: Statements,
        clock: Clock,
        watch_interval_s: float,
        on_created: Callable[[str], None],
    ) -> None:
        self._repository, self._journal, self._catalogue = repository, journal, catalogue
        self._parties, self._compiler, self._clock = parties, compiler, clock
        self._statements = statements
        self._watch_interval_s, self._on_created = watch_interval_s, on_created

    async def create(self, person: Person, request: StudyRequest) -> Study:
        """The new study, or the one that the same request made before.

        The parties know its first version before it is stored, so a study that exists can be dealt. Its id
        follows from who asks and the request id: repeating a request that failed half-way ends in one study.
        Raises InvalidInput for a wrong plan or datasets, or when the person did not sign just this;
        PermissionDenied when somebody else did; AlreadyExists for another request with this id; Unavailable
        when a party is down.
        """
        study = self._prepare(person, request)
        existing = self._repository.study(study.study_id)
        if existing is not None:
            return _same(existing, study)
        plan = TrainingPlan.from_json(study.plan_json)
        await self._check_parameters(plan, request.parameters)
        members = self._members(plan, request.dataset_ids)
        await self._parties.register_model(
            ModelRegistration(
                model_id=training_model_id(study.study_id, 0),
                ring=Ring.RING_32,
                length=request.parameters,
                dealer=person.identity,
                readers=version_readers(
                    plan, creator=person.identity, hospitals=[member.hospital for member in members]
                ),
            )
        )
        try:
            self._journal.add(replace(study, members=members))
        except AlreadyExists:  # the same request came twice at once
            return _same(self._journal.study(study.study_id), study)
        self._on_created(study.study_id)
        return self._journal.study(study.study_id)

    def start(self, person: Person, study_id: str) -> Study:
        """The first version is dealt: rounds begin once the owners approve. Twice is as good as once."""
        self._require_creator(person, study_id)
        return self._journal.update(
            study_id,
            lambda study: study.after(StudyEvent.STARTED) if study.state is StudyState.CREATED else study,
        )

    def cancel(self, person: Person, study_id: str) -> Study:
        """End the study. FailedPrecondition when it has ended otherwise; cancelling twice changes nothing."""
        self._require_creator(person, study_id)
        study = self._journal.update(study_id, lambda study: study.after(StudyEvent.CANCELLED))
        if study.state is not StudyState.CANCELLED:
            raise FailedPrecondition(
                f"The study is {study.state.value} already and cannot be cancelled any more."
            )
        return study

    def get(self, study_id: str) -> Study:
        """The study as it is now. NotFound if there is none."""
        return self._journal.study(study_id)

    def page(self, *, size: int, token: str) -> Page[Study]:
        """All studies in the order of creation. The page's key is the next token."""
        after = from_token(token, listing="studies")
        page = self._repository.page_of_studies(after=after, limit=page_size(size))
        return Page(page.items, to_token(page.next_key, listing="studies"))

    async def watch(self, study_id: str) -> AsyncIterator[Study]:
        """The study now and after changes, until it ends. Changes that follow closely come as one."""
        while True:
            seen = self._journal.feed.version(study_id)
            study = self._journal.study(study_id)
            yield study
            if study.ended:
                return
            await self._journal.feed.wait(study_id, seen=seen)
            await asyncio.sleep(self._watch_interval_s)

    def _prepare(self, person: Person, request: StudyRequest) -> Study:
        """The study without its members: all that can be checked without asking anybody."""
        plan = TrainingPlan.from_json(request.training_plan)
        request_id = checked_text("request id", request.request_id, limit=MAX_REQUEST_ID)
        title = checked_text("title", request.title, limit=MAX_TITLE)
        stated = self._statements.verified(request.statement, kind=KIND, identity=person.identity)
        signed = (stated.text("request_id"), stated.text("title"), stated.text("plan_hash"))
        if (*signed, stated.texts("dataset_ids")) != (request_id, title, plan.hash, request.dataset_ids):
            raise InvalidInput(
                "The request is not the one that was signed: request id, title, plan and datasets must be "
                "the same. Sign the request that is sent."
            )
        return Study(
            study_id=derived_id("study", person.identity, request_id),
            request_id=request_id,
            title=title,
            plan_json=plan.canonical_json(),
            plan_hash=plan.hash,
            rounds_planned=plan.rounds,
            quorum=plan.quorum,
            parameters=request.parameters,
            creator=person.identity,
            created_by=person.subject,
            created_at=self._clock.now(),
            members=tuple(Member("", "", dataset_id, "", 0) for dataset_id in request.dataset_ids),
            statement=signed_of(request.statement),
        )

    async def _check_parameters(self, plan: TrainingPlan, claimed: int) -> None:
        expected = await self._compiler.count_parameters(plan)
        if claimed != expected:
            raise InvalidInput(
                f"The plan's model {plan.model!r} has {expected} parameters, not {claimed}. "
                "Use the same version of Trefoil as the coordinator."
            )

    def _members(self, plan: TrainingPlan, dataset_ids: tuple[str, ...]) -> tuple[Member, ...]:
        """One member per dataset. InvalidInput for datasets unknown, offline, twice, or too few."""
        if not dataset_ids or len(set(dataset_ids)) != len(dataset_ids):
            raise InvalidInput("A study names at least one dataset, and each only once.")
        listed = self._catalogue.require_online(dataset_ids)
        hospitals = Counter(entry.dataset.hospital for entry in listed)
        doubled = [entry.dataset.dataset_id for entry in listed if hospitals[entry.dataset.hospital] > 1]
        if doubled:
            raise InvalidInput(
                f"A study uses one dataset of each hospital; choose between {', '.join(doubled)}."
            )
        if not plan.quorum <= len(listed) <= MAX_HOSPITALS:
            raise InvalidInput(
                f"The plan's quorum is {plan.quorum} and a study has at most {MAX_HOSPITALS} hospitals, but "
                f"{len(listed)} were chosen. Choose other datasets or change the quorum."
            )
        return tuple(
            Member(
                hospital=entry.dataset.hospital,
                hospital_name=entry.hospital_name,
                dataset_id=entry.dataset.dataset_id,
                dataset_name=entry.dataset.name,
                images=entry.dataset.images,
            )
            for entry in listed
        )

    def _require_creator(self, person: Person, study_id: str) -> None:
        study = self._journal.study(study_id)
        if (study.creator, study.created_by) != (person.identity, person.subject):
            raise PermissionDenied(f"Only {study.created_by}, who created the study, may do this.")


def derived_id(prefix: str, identity: str, request_id: str) -> str:
    """The id of what this request makes, always the same: 80 bits of SHA-256."""
    digest = hashlib.sha256(f"{identity}\n{request_id}".encode()).hexdigest()
    return f"{prefix}-{digest[:20]}"


def _same(existing: Study, asked: Study) -> Study:
    """The existing study if it is what was asked for."""

    def content(study: Study) -> object:
        datasets = [member.dataset_id for member in study.members]
        return study.title, study.plan_hash, study.parameters, study.created_by, datasets

    if content(existing) != content(asked):
        raise AlreadyExists(
            "Another study was created with this request id. Use a new request id for a new study."
        )
    return existing
