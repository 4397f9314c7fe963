from __future__ import annotations

from dataclasses import replace

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound
from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.domain import ProposalState
from services.hospital_node.proposals import Proposals
from tests.fakes.hospital_ports import (
    HOSPITALS,
    PLAN,
    STUDY,
    RememberingAnnouncer,
    dataset,
    proposal,
    shelve,
    unshelve,
)


@pytest.fixture
def announcer() -> RememberingAnnouncer:
    return RememberingAnnouncer()


@pytest.fixture
async def proposals(store: Database, datasets: DatasetStore, announcer: RememberingAnnouncer) -> Proposals:
    await shelve(datasets, dataset())
    return Proposals(store=store, datasets=datasets, announcer=announcer)


async def approve(proposals: Proposals) -> None:
    await proposals.receive(proposal())
    await proposals.decide(study_id=STUDY, plan_hash=PLAN.hash, approve=True, reason="")


async def test_a_decision_is_told_and_gives_consent(
    proposals: Proposals, announcer: RememberingAnnouncer
) -> None:
    await approve(proposals)
    assert announcer.said == [("decided", STUDY, PLAN.hash, True, "")]
    assert (await proposals.consent(study_id=STUDY, plan_hash=PLAN.hash))[1] == dataset()


async def test_a_decision_about_another_hash_is_refused_and_changes_nothing(
    proposals: Proposals, store: Database, announcer: RememberingAnnouncer
) -> None:
    await proposals.receive(proposal())
    with pytest.raises(InvalidInput, match="hash"):
        await proposals.decide(study_id=STUDY, plan_hash="0" * 64, approve=True, reason="")
    assert (await store.proposal(STUDY)).state is ProposalState.PENDING
    assert not announcer.said


async def test_a_decision_about_an_unknown_study_is_refused(proposals: Proposals) -> None:
    with pytest.raises(NotFound):
        await proposals.decide(study_id="nothing", plan_hash=PLAN.hash, approve=True, reason="")


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan_hash": "0" * 64},
        {"training_plan": b"{}"},
        {"training_plan": b" " + PLAN.canonical_json()},
        {"dataset_name": "unknown"},
        {"hospitals": HOSPITALS[:1]},
    ],
    ids=["hash", "plan", "form", "dataset", "fewer hospitals than the quorum"],
)
async def test_a_proposal_that_cannot_be_approved_is_denied_and_not_stored(
    wrong: dict[str, object], proposals: Proposals, store: Database, announcer: RememberingAnnouncer
) -> None:
    await proposals.receive(replace(proposal(), **wrong))  # type: ignore[arg-type]
    assert announcer.said[0][3] is False
    assert await store.proposals() == []


async def test_a_plan_that_changes_under_the_same_study_is_denied_and_the_first_one_stays(
    proposals: Proposals, store: Database, announcer: RememberingAnnouncer
) -> None:
    await approve(proposals)
    changed = PLAN.model_copy(update={"learning_rate": 0.5})
    await proposals.receive(proposal(changed))
    assert announcer.said[-1][2:4] == (changed.hash, False)
    assert (await store.proposal(STUDY)).plan_hash == PLAN.hash


@pytest.mark.parametrize("changed", [{"hospitals": (*HOSPITALS, "x")}, {"readers": ("x",)}])
async def test_hospitals_or_readers_that_change_are_denied_and_the_first_ones_stay(
    changed: dict[str, tuple[str, ...]],
    proposals: Proposals,
    store: Database,
    announcer: RememberingAnnouncer,
) -> None:
    await approve(proposals)
    await proposals.receive(replace(proposal(), **changed))  # type: ignore[arg-type]
    assert announcer.said[-1][3] is False
    stored = await store.proposal(STUDY)
    assert (stored.hospitals, stored.readers) == (HOSPITALS, proposal().readers)


async def test_a_repeated_proposal_gets_the_decision_again(
    proposals: Proposals, announcer: RememberingAnnouncer
) -> None:
    await approve(proposals)
    await proposals.receive(proposal())
    assert announcer.said[0] == announcer.said[1]


@pytest.mark.parametrize(
    "ending", ["pending", "denied", "withdrawn consent", "ended", "dataset withdrawn", "hash"]
)
async def test_without_consent_there_is_none(
    ending: str, proposals: Proposals, datasets: DatasetStore
) -> None:
    await proposals.receive(proposal())
    if ending not in {"pending", "denied"}:
        await proposals.decide(study_id=STUDY, plan_hash=PLAN.hash, approve=True, reason="")
    if ending in {"denied", "withdrawn consent"}:
        await proposals.decide(study_id=STUDY, plan_hash=PLAN.hash, approve=False, reason="no")
    if ending == "ended":
        await proposals.end(STUDY)
    if ending == "dataset withdrawn":
        await unshelve(datasets, "chest")
    with pytest.raises(FailedPrecondition):
        await proposals.consent(study_id=STUDY, plan_hash="0" * 64 if ending == "hash" else PLAN.hash)


async def test_the_end_of_an_unknown_study_is_no_error(proposals: Proposals) -> None:
    await proposals.end("never-proposed")
