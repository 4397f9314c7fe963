"""Access as the rest of the node sees it: what came is checked, kept, decided, and told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from libs.core.clock import Clock
from libs.core.errors import FailedPrecondition, InvalidInput
from libs.runtime.audit.entry import MAX_DETAIL_TEXT, Event, Outcome
from libs.runtime.logging import get_logger
from services.hospital_node.access import admission, proposals, requests
from services.hospital_node.access.domain import AccessRequest, Origin, Standing, Study, StudyState, Told
from services.hospital_node.access.ports import AccessStore, DecisionListener, Unit
from services.hospital_node.access.refusals import Refusals
from services.hospital_node.access.requests import Decided
from services.hospital_node.access.statements import Asked, Proposal, StatementReader
from services.hospital_node.domain import Dataset

log = get_logger(__name__)

_ID_TAKEN = InvalidInput("Something else at this hospital has this id. Ask again under an id of its own.")


@dataclass(frozen=True)
class Decisions:
    """All that a coordinator has to know about what was decided here."""

    plans: list[Study]
    requests: list[Told]


class Access:
    """The owner's consent. Nothing is trained, calibrated, released or sent without it."""

    def __init__(
        self,
        *,
        store: AccessStore,
        reader: StatementReader,
        listener: DecisionListener,
        clock: Clock,
        model_use_changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`model_use_changed` hears that the parties may have to be told something."""
        self.store, self._model_use_changed = store, model_use_changed
        self._reader, self._listener, self._clock = reader, listener, clock
        self._refusals = Refusals()

    # ------------------------------------------------------------ what comes from the coordinator

    async def plan_proposed(self, proposal: Proposal) -> None:
        """Admit, keep for the owner, or answer one that cannot be approved with a denial.

        A forged study, or one that was changed on its way, is denied and never shown to anybody.
        """
        known = await self.store.run(lambda unit: unit.study(proposal.study_id))
        if known is not None and proposals.repeats(known, proposal):
            self._tell_plan(known)
            return
        try:
            study = await asyncio.to_thread(self._reader.study, proposal, now=self._clock.now())
            decided = await self._admit_or_turn_down(study)
        except InvalidInput as error:
            await self._refused(f"study/{proposal.study_id}", error)
            self._listener.plan_decided(
                study_id=proposal.study_id,
                plan_hash=proposal.plan_hash,
                approved=False,
                reason=str(error),
            )
            return
        [stored] = decided.studies
        log.info(
            "plan_received", study=stored.study_id, dataset=stored.dataset_name, state=stored.state.value
        )
        self.tell(decided)

    async def access_asked(self, asked: Asked) -> None:
        """Keep for the owner, approve by a rule, or answer with a denial. What is known stays what it was.

        Studies and what staff asked have their ids in the same list, and are nothing to be told of by that
        id: what is granted to a study is its planned cost, which follows from the exact number of images.
        """
        known = await self.store.run(lambda unit: _standing(unit, asked.request_id))
        if known is not None and known[0].origin is not Origin.COORDINATOR:
            await self._refused(f"request/{asked.request_id}", _ID_TAKEN)
            self._listener.access_decided(Told(asked.request_id, Standing.DENIED, str(_ID_TAKEN)))
            return
        if known is not None:
            if known[0].statement_hash != asked.statement_hash:
                log.warning("access_request_refused", request=asked.request_id, reason="id_taken")
            self._listener.access_decided(known[1])
            return
        try:
            request = await asyncio.to_thread(self._reader.request, asked, now=self._clock.now())
            decided = await self.store.run(lambda unit: requests.receive(unit, request))
        except InvalidInput as error:
            await self._refused(f"request/{asked.request_id}", error)
            self._listener.access_decided(Told(asked.request_id, Standing.DENIED, str(error)))
            return
        log.info("access_request_received", request=asked.request_id, purpose=request.purpose.value)
        self.tell(decided)

    async def study_ended(self, study_id: str) -> None:
        """The study is over; orders for it are refused from now on."""
        await self.store.run(lambda unit: requests.end_study(unit, study_id))
        self._model_use_changed()
        log.info("study_ended", study=study_id)

    async def living_studies(self) -> set[str]:
        """Those that have not ended, as far as this node was told."""
        studies = await self.store.run(lambda unit: unit.studies())
        return {study.study_id for study in studies if study.state is not StudyState.ENDED}

    # ------------------------------------------------------------ what every order rests on

    async def consent(self, *, study_id: str, plan_hash: str) -> tuple[Study, Dataset]:
        """See `admission.consent`; asked at every order and before every share."""
        return await self.store.run(
            lambda unit: admission.consent(unit, study_id=study_id, plan_hash=plan_hash)
        )

    async def pay_for_attempt(self, *, study_id: str, plan_hash: str, number: int, attempt: int) -> None:
        """See `admission.pay_for_attempt`; before a round is trained."""
        await self.store.run(
            lambda unit: admission.pay_for_attempt(
                unit, study_id=study_id, plan_hash=plan_hash, number=number, attempt=attempt
            )
        )

    # ------------------------------------------------------------ what is told

    async def decisions(self) -> Decisions:
        """Everything decided so far, for a coordinator that may have missed some."""

        def work(unit: Unit) -> Decisions:
            known = unit.requests(pending_only=False, after="", limit=None)
            told = [
                Told.about(request, unit.approval_of(request.request_id), now=unit.now)
                for request in known
                if request.origin is Origin.COORDINATOR
            ]
            plans = [s for s in unit.studies() if s.state in (StudyState.ADMITTED, StudyState.DENIED)]
            return Decisions(plans, told)

        return await self.store.run(work)

    def tell(self, decided: Decided) -> None:
        """The coordinator and the parties hear what concerns them."""
        self._model_use_changed()
        for study in decided.studies:
            self._tell_plan(study)
        if decided.request is not None and decided.request.origin is Origin.COORDINATOR:
            now = self._clock.now()
            self._listener.access_decided(Told.about(decided.request, decided.approval, now=now))

    def _tell_plan(self, study: Study) -> None:
        if study.state in (StudyState.ADMITTED, StudyState.DENIED):
            self._listener.plan_decided(
                study_id=study.study_id,
                plan_hash=study.plan_hash,
                approved=study.state is StudyState.ADMITTED,
                reason=study.reason,
            )

    async def _admit_or_turn_down(self, study: Study) -> Decided:
        try:
            return await self.store.run(lambda unit: proposals.propose(unit, study))
        except FailedPrecondition as error:
            reason = str(error)
            return await self.store.run(lambda unit: proposals.turn_down(unit, study, reason=reason))

    async def _refused(self, what: str, error: InvalidInput) -> None:
        why = str(error)[:MAX_DETAIL_TEXT]
        log.warning("statement_refused", what=what)
        left_out = self._refusals.enter(what, why, now=self._clock.now())
        if left_out is None:
            return
        event = Event(
            action="statement.refused",
            actor="system",
            object=what,
            outcome=Outcome.REFUSED,
            details={"why": why, **({"left_out": left_out} if left_out else {})},
        )
        await self.store.run(lambda unit: unit.record(event))


def _standing(unit: Unit, request_id: str) -> tuple[AccessRequest, Told] | None:
    request = unit.request(request_id)
    if request is None:
        return None
    return request, Told.about(request, unit.approval_of(request_id), now=unit.now)
