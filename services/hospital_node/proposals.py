"""Training plans that ask for this hospital's data: received, read by the owner, decided."""

from __future__ import annotations

import dataclasses

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound
from libs.fl.training_plan import TrainingPlan
from libs.runtime.logging import get_logger
from services.hospital_node.domain import Dataset, Proposal, ProposalEvent, ProposalState
from services.hospital_node.ports import Announcer, Datasets, Store

log = get_logger(__name__)


class Proposals:
    """The owner's consent. Nothing is trained, calibrated or released without it."""

    def __init__(self, *, store: Store, datasets: Datasets, announcer: Announcer) -> None:
        self._store, self._datasets, self._announcer = store, datasets, announcer

    async def receive(self, proposal: Proposal) -> None:
        """Store a proposal for the owner, or answer one that cannot be approved with a denial.

        A study's plan never changes: a second proposal for the same study with another hash is denied, and
        the first one stays what it was. A proposal that was decided already gets that decision again.
        """
        try:
            await self._check(proposal)
        except (InvalidInput, NotFound) as error:
            log.warning("proposal_refused", study=proposal.study_id, reason=error.code)
            self._announce(dataclasses.replace(proposal, state=ProposalState.DENIED, reason=str(error)))
            return
        stored = await self._store.add_proposal(proposal)
        if _asked(stored) != _asked(proposal):
            reason = (
                "The plan of this study, its hospitals or its readers changed after it was proposed. Create "
                "a new study for a new plan."
            )
            log.warning("proposal_refused", study=proposal.study_id, reason="plan_changed")
            self._announce(dataclasses.replace(proposal, state=ProposalState.DENIED, reason=reason))
            return
        log.info(
            "proposal_received", study=stored.study_id, dataset=stored.dataset_name, state=stored.state.value
        )
        self._announce(stored)

    async def decide(self, *, study_id: str, plan_hash: str, approve: bool, reason: str) -> Proposal:
        """Record the owner's decision about exactly the plan of this hash, and tell the coordinator.

        Raises NotFound; InvalidInput when the hash is not the stored one; FailedPrecondition when the study
        has ended or was denied before.
        """
        proposal = await self._store.proposal(study_id)
        if plan_hash != proposal.plan_hash:
            raise InvalidInput(
                "This is not the hash of the plan that was proposed for this study. Read the proposal again "
                "and decide with the hash shown there."
            )
        event = ProposalEvent.APPROVE if approve else ProposalEvent.DENY
        decided = await self._store.move_proposal(study_id, event, reason=reason)
        log.info("proposal_decided", study=study_id, state=decided.state.value)
        self._announce(decided)
        return decided

    async def end(self, study_id: str) -> None:
        """The study is over; orders for it are refused from now on."""
        try:
            await self._store.move_proposal(study_id, ProposalEvent.END)
        except NotFound:
            return  # it was proposed and ended while we were away
        log.info("study_ended", study=study_id)

    async def consent(self, *, study_id: str, plan_hash: str) -> tuple[Proposal, Dataset]:
        """The approved proposal and its published data set, on which every order rests.

        Raises FailedPrecondition unless the owner approved this very hash for this study and the data set is
        still published. The coordinator's word counts for nothing here.
        """
        try:
            proposal = await self._store.proposal(study_id)
        except NotFound:
            raise FailedPrecondition("This study was never proposed to this hospital.") from None
        if proposal.state is not ProposalState.APPROVED or proposal.plan_hash != plan_hash:
            raise FailedPrecondition("This hospital has not approved this training plan for this study.")
        try:
            return proposal, await self._datasets.dataset(proposal.dataset_name)
        except NotFound:
            raise FailedPrecondition("The data set of this study is no longer published here.") from None

    async def _check(self, proposal: Proposal) -> None:
        plan = TrainingPlan.from_json(proposal.training_plan)
        if plan.canonical_json() != proposal.training_plan or plan.hash != proposal.plan_hash:
            raise InvalidInput(
                "The training plan does not match its hash. Propose the plan in its canonical form."
            )
        if len(proposal.hospitals) < plan.quorum:
            raise InvalidInput(
                f"The plan's quorum is {plan.quorum}, but the proposal names {len(proposal.hospitals)} "
                "hospitals. Choose more data sets."
            )
        await self._datasets.dataset(proposal.dataset_name)

    def _announce(self, proposal: Proposal) -> None:
        if proposal.state in (ProposalState.APPROVED, ProposalState.DENIED):
            self._announcer.proposal_decided(
                study_id=proposal.study_id,
                plan_hash=proposal.plan_hash,
                approved=proposal.state is ProposalState.APPROVED,
                reason=proposal.reason,
            )


def _asked(proposal: Proposal) -> tuple[object, ...]:
    """What the owner says yes or no to."""
    return (proposal.plan_hash, proposal.dataset_name, proposal.hospitals, proposal.readers)
