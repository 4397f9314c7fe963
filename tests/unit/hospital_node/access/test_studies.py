"""Studies that the coordinator proposes: what a node believes of them, and under what it admits them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound
from libs.rpc._generated.trefoil.types.v1.types_pb2 import SignedStatement
from libs.rpc.identity import Identity, Kind, party_identity
from services.hospital_node.access.admission import admit
from services.hospital_node.access.domain import LedgerKind, RequestState, Standing, StudyState
from services.hospital_node.access.requests import Decision
from services.hospital_node.access.statements import Proposal
from tests.fakes.access import (
    ALPHA,
    DANA,
    FREELY,
    PRIVATE_PLAN,
    AccessRig,
    People,
    cost,
)
from tests.fakes.hospital_ports import HOSPITALS, NOW, PLAN, STUDY, dataset, shelve, unshelve

MALLORY = Identity(Kind.CLIENT, "mallory")
CHANGED = PLAN.model_copy(update={"learning_rate": 0.5})
OTHERS = (*HOSPITALS, "spiffe://trefoil.local/hospital/gamma")


async def consented(rig: AccessRig, plan_hash: str = PLAN.hash) -> bool:
    try:
        await rig.access.consent(study_id=STUDY, plan_hash=plan_hash)
    except FailedPrecondition:
        return False
    return True


async def test_a_study_waits_for_the_owner_and_is_admitted_by_the_approval(rig: AccessRig) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    [request] = await rig.requests()
    assert (request.state, request.requester, request.asked) == (RequestState.PENDING, DANA.uri, FREELY)
    assert not await consented(rig)
    assert rig.listener.plans == []
    await rig.decide(STUDY)
    assert await consented(rig)
    assert rig.listener.plans == [(STUDY, True, "")]
    [entry] = await rig.entries()
    approval = await rig.approval_of(STUDY)
    assert (entry.line.kind, entry.line.cost, entry.line.consumer) == (LedgerKind.ADMITTED, FREELY, DANA.uri)
    assert (approval.used, entry.line.approval_id) == (1, approval.approval_id)
    assert rig.audited()[-4:] == ["study.proposed", "request.received", "request.approved", "study.admitted"]


def forgeries(people: People, folder: Path) -> dict[str, Proposal]:
    """What a dishonest coordinator could send in Dana's name."""
    honest = people.proposal()
    altered = honest.statement.payload.replace(b"Pneumonia", b"Something")
    plan = {"plan_hash": CHANGED.hash, "training_plan": CHANGED.canonical_json()}
    elsewhere = People(folder)
    return {
        "not signed": replace(honest, statement=SignedStatement()),
        "altered after signing": replace(
            honest,
            title="Something",
            statement=SignedStatement(
                payload=altered,
                signature=honest.statement.signature,
                certificate_chain=honest.statement.certificate_chain,
            ),
        ),
        "signed by a hospital": people.proposal(signer=ALPHA),
        "signed by a party": people.proposal(signer=party_identity(1)),
        "signed under another CA": elsewhere.proposal(),
        "a request, not a study": replace(honest, statement=people.asked().statement),
        "another title": replace(honest, title="Something"),
        "another plan": replace(honest, **plan),
        "plan and hash differ": replace(honest, training_plan=CHANGED.canonical_json()),
        "plan in another form": replace(honest, training_plan=b" " + PLAN.canonical_json()),
        "another data set": replace(honest, dataset_name="hands"),
        "without this hospital": people.proposal(says={"dataset_ids": ["beta/chest", "gamma/chest"]}),
        "one more hospital": replace(honest, hospitals=OTHERS),
        "one hospital fewer": replace(honest, hospitals=HOSPITALS[:1]),
        "another reader": replace(honest, readers=(MALLORY.uri, *HOSPITALS)),
        "fewer hospitals than the quorum": people.proposal(
            says={"dataset_ids": ["alpha/chest"]}, hospitals=HOSPITALS[:1], readers=()
        ),
    }


FORGERIES = (
    "not signed",
    "altered after signing",
    "signed by a hospital",
    "signed by a party",
    "signed under another CA",
    "a request, not a study",
    "another title",
    "another plan",
    "plan and hash differ",
    "plan in another form",
    "another data set",
    "without this hospital",
    "one more hospital",
    "one hospital fewer",
    "another reader",
    "fewer hospitals than the quorum",
)


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_study_that_its_scientist_did_not_sign_is_denied_and_never_shown(
    light_rig: AccessRig, tmp_path: Path, forgery: str
) -> None:
    rig = light_rig
    await shelve(rig.datasets, dataset("hands"))
    await rig.add_rule()  # that would approve the honest one
    await rig.access.plan_proposed(forgeries(rig.people, tmp_path / "elsewhere")[forgery])
    [(study_id, approved, _)] = rig.listener.plans
    assert (study_id, approved) == (STUDY, False)
    assert await rig.requests() == []
    assert await rig.study() is None
    assert rig.audited()[-1] == "statement.refused"


def test_every_forgery_is_tried(people: People, tmp_path: Path) -> None:
    assert set(forgeries(people, tmp_path / "elsewhere")) == set(FORGERIES)


async def test_the_honest_study_is_what_those_forgeries_differ_from(rig: AccessRig) -> None:
    await rig.add_rule()
    await rig.access.plan_proposed(rig.people.proposal())
    assert rig.listener.plans == [(STUDY, True, "")]


async def test_one_signature_makes_one_study(rig: AccessRig) -> None:
    await rig.add_rule()
    honest = rig.people.proposal()
    await rig.access.plan_proposed(honest)
    await rig.access.plan_proposed(replace(honest, study_id="study-2"))
    assert [(name, approved) for name, approved, _ in rig.listener.plans] == [
        (STUDY, True),
        ("study-2", False),
    ]
    [approval] = [await rig.approval_of(STUDY)]
    assert approval.used == 1


@pytest.mark.parametrize(
    "changed", [{"hospitals": OTHERS}, {"readers": HOSPITALS}, {"title": "Other"}], ids=str
)
async def test_a_study_that_changes_is_denied_and_the_first_one_stays(
    rig: AccessRig, changed: dict[str, Any]
) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.decide(STUDY)
    before = await rig.study()
    says = {"dataset_ids": ["alpha/chest", "beta/chest", "gamma/chest"]} if "hospitals" in changed else {}
    says |= {"title": "Other"} if "title" in changed else {}
    await rig.access.plan_proposed(rig.people.proposal(says=says, **changed))
    assert rig.listener.plans[-1][1] is False
    assert await rig.study() == before


async def test_a_repeated_proposal_gets_the_decision_again_though_its_certificate_is_out_of_date(
    rig: AccessRig,
) -> None:
    honest = rig.people.proposal()
    await rig.access.plan_proposed(honest)
    await rig.decide(STUDY)
    rig.clock.moment += timedelta(days=800)
    await rig.access.plan_proposed(honest)
    assert rig.listener.plans == [(STUDY, True, "")] * 2
    await rig.access.plan_proposed(replace(honest, study_id="study-2"))
    assert rig.listener.plans[-1][:2] == ("study-2", False)


async def test_a_decision_about_another_hash_is_refused_and_changes_nothing(rig: AccessRig) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    with pytest.raises(InvalidInput, match="hash"):
        await rig.decide(STUDY, Decision(approve=True, granted=FREELY, plan_hash="0" * 64))
    with pytest.raises(NotFound):
        await rig.decide("nothing")
    [request] = await rig.requests()
    assert request.state is RequestState.PENDING


async def test_training_without_privacy_is_granted_in_so_many_words_or_not_at_all(rig: AccessRig) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    with pytest.raises(InvalidInput, match="so many words"):
        await rig.decide(STUDY, Decision(approve=True, plan_hash=PLAN.hash))
    assert not await consented(rig)


async def test_a_denial_is_told_and_final(rig: AccessRig) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.decide(STUDY, Decision(approve=False, plan_hash=PLAN.hash, reason="no"))
    assert rig.listener.plans == [(STUDY, False, "no")]
    with pytest.raises(FailedPrecondition, match="denied"):
        await rig.decide(STUDY)


async def test_an_approval_for_a_study_that_cannot_be_paid_for_is_refused_and_keeps_nothing(
    transactions: Any, people: People
) -> None:
    rig = await AccessRig(transactions, people).ready(budget=None)
    await rig.access.plan_proposed(people.proposal())
    with pytest.raises(
        FailedPrecondition, match=r"Nobody has set .*dataset budget chest .*--without-privacy"
    ):
        await rig.decide(STUDY)
    [request] = await rig.requests()
    assert request.state is RequestState.PENDING
    assert rig.audited()[-1] == "request.received"
    await rig.set_budget(cost("1000"))
    with pytest.raises(FailedPrecondition, match=r"does not allow this.*dataset budget chest"):
        await rig.decide(STUDY)
    await rig.set_budget(FREELY)
    await rig.decide(STUDY)
    assert await consented(rig)


async def approved_request(rig: AccessRig, *, uses: int = 2, **decision: Any) -> None:
    await rig.access.access_asked(rig.people.asked(uses=uses))
    await rig.decide("request-1", Decision(True, PLAN.hash, granted=FREELY, **decision))


async def test_a_study_under_an_approval_takes_a_use_and_the_next_one_the_next(rig: AccessRig) -> None:
    await approved_request(rig)
    for number in (1, 2, 3):
        await rig.access.plan_proposed(rig.people.proposal(study_id=f"study-{number}"))
    assert [plan[:2] for plan in rig.listener.plans] == [("study-1", True), ("study-2", True)]
    assert (await rig.approval_of("request-1")).used == 2
    # The third asks by itself.
    third = await rig.request("study-3")
    assert third is not None
    assert third.state is RequestState.PENDING


async def expire(rig: AccessRig) -> None:
    rig.clock.moment += timedelta(days=2)


async def withdraw(rig: AccessRig) -> None:
    await unshelve(rig.datasets, "chest")


async def change_content(rig: AccessRig) -> None:
    await unshelve(rig.datasets, "chest")
    await shelve(rig.datasets, replace(dataset(), version=2, content_hash="d" * 64))


async def revoke(rig: AccessRig) -> None:
    await rig.revoke("request-1")


ENDS = {"expired": expire, "withdrawn": withdraw, "other content": change_content, "revoked": revoke}


@pytest.mark.parametrize("end", ENDS)
async def test_an_approval_that_does_not_hold_admits_no_study_and_ends_those_it_admitted(
    rig: AccessRig, end: str
) -> None:
    await approved_request(rig, expires_at=NOW + timedelta(days=1))
    await rig.access.plan_proposed(rig.people.proposal())
    assert await consented(rig)
    await ENDS[end](rig)
    assert not await consented(rig)
    await rig.access.plan_proposed(rig.people.proposal(study_id="study-2"))
    second = await rig.study("study-2")
    assert second is None or second.state is not StudyState.ADMITTED
    assert (await rig.approval_of("request-1")).used == 1


@pytest.mark.parametrize("which", ["plan", "scientist", "data set"])
async def test_an_approval_is_for_one_plan_of_one_scientist_on_one_data_set(
    rig: AccessRig, which: str
) -> None:
    await approved_request(rig)
    await shelve(rig.datasets, dataset("hands"))
    proposal = {
        "plan": lambda: rig.people.proposal(CHANGED),
        "scientist": lambda: rig.people.proposal(signer=MALLORY),
        "data set": lambda: rig.people.proposal(
            dataset_name="hands", says={"dataset_ids": ["alpha/hands", "beta/chest"]}
        ),
    }[which]()
    await rig.access.plan_proposed(proposal)
    study = await rig.study()
    assert study is not None
    assert study.state is StudyState.WAITING
    assert (await rig.approval_of("request-1")).used == 0


@pytest.mark.parametrize("changed", [{"plan_hash": CHANGED.hash}, {"requester": MALLORY.uri}], ids=str)
async def test_admission_itself_holds_the_study_against_the_approval(
    rig: AccessRig, changed: dict[str, str]
) -> None:
    """Whoever calls it, with whichever approval."""
    await approved_request(rig)
    approval = await rig.approval_of("request-1")
    await rig.access.plan_proposed(rig.people.proposal(CHANGED))
    waiting = await rig.study()
    assert waiting is not None
    study = replace(waiting, plan_hash=PLAN.hash)
    await rig.store.run(lambda unit: admit(unit, study, approval, actor="system"))
    with pytest.raises(FailedPrecondition, match="not approved"):
        await rig.store.run(
            lambda unit: admit(unit, replace(study, **changed), approval, actor="system")  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    "over", [{"used": 2}, {"expires_at": NOW}, {"revoked_at": NOW}], ids=["used up", "expired", "revoked"]
)
async def test_admission_itself_refuses_an_approval_that_is_over(
    rig: AccessRig, over: dict[str, Any]
) -> None:
    await approved_request(rig)
    approval = await rig.approval_of("request-1")
    await rig.access.plan_proposed(rig.people.proposal(CHANGED))
    waiting = await rig.study()
    assert waiting is not None
    study = replace(waiting, plan_hash=PLAN.hash)
    with pytest.raises(FailedPrecondition, match=approval.approval_id):
        await rig.store.run(lambda unit: admit(unit, study, replace(approval, **over), actor="system"))
    assert await rig.entries() == []


async def test_revoking_ends_the_study_and_tells_of_both(rig: AccessRig) -> None:
    await approved_request(rig)
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.revoke("request-1")
    await rig.revoke("request-1")  # once is enough
    assert [plan[:2] for plan in rig.listener.plans] == [(STUDY, True), (STUDY, False)]
    assert rig.listener.told[-1].standing.value == "revoked"
    assert rig.audited().count("approval.revoked") == 1
    with pytest.raises(FailedPrecondition, match="Revoke its approval"):
        await rig.decide("request-1")
    with pytest.raises(NotFound):
        await rig.revoke("nothing")


async def test_the_end_of_a_study_ends_consent_and_the_question_to_the_owner(rig: AccessRig) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.access.study_ended(STUDY)
    await rig.access.study_ended("never-proposed")
    [request] = await rig.requests()
    assert request.state is RequestState.DENIED
    with pytest.raises(FailedPrecondition):
        await rig.decide(STUDY)


async def test_nothing_is_obeyed_for_an_admitted_study_that_ended(rig: AccessRig) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.decide(STUDY)
    await rig.access.study_ended(STUDY)
    assert not await consented(rig)


async def test_the_cost_of_all_rounds_is_taken_before_the_first_one(
    transactions: Any, people: People
) -> None:
    rig = await AccessRig(transactions, people).ready(budget=cost("2", "0.00001"))
    await rig.access.plan_proposed(people.proposal(PRIVATE_PLAN))
    await rig.decide(STUDY, Decision(True, PRIVATE_PLAN.hash))
    [entry] = await rig.entries()
    assert entry.line.cost == (await rig.approval_of(STUDY)).granted
    assert entry.line.cost.delta == cost("0", "0.00001").delta
    # Its delta is all of the budget's: another study, however small, is refused before it starts.
    await rig.add_rule(at_most=cost("10", "0.1"))
    await rig.access.plan_proposed(people.proposal(PRIVATE_PLAN, study_id="study-2"))
    assert rig.listener.plans[-1][:2] == ("study-2", False)
    assert "privacy budget" in rig.listener.plans[-1][2]
    assert len(await rig.entries()) == 1
    await rig.access.plan_proposed(people.proposal(PRIVATE_PLAN, study_id="study-2"))
    assert rig.listener.plans[-1][:2] == ("study-2", False)


async def test_an_approval_with_less_than_the_plan_costs_admits_no_study(rig: AccessRig) -> None:
    await rig.access.access_asked(rig.people.asked(plan=PRIVATE_PLAN, epsilon="2", delta="0.00001", uses=1))
    narrow = Decision(True, PRIVATE_PLAN.hash, granted=cost("0.01", "0.00001"))
    await rig.decide("request-1", narrow)
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN))
    [(_, approved, reason)] = rig.listener.plans
    assert not approved
    assert "does not grant as much" in reason
    assert (await rig.approval_of("request-1")).used == 0


@pytest.mark.parametrize("lacking", ["approval", "budget"])
async def test_what_is_told_of_a_study_that_cannot_be_paid_for_holds_no_figure(
    rig: AccessRig, lacking: str
) -> None:
    """The planned cost of a known plan gives the exact number of images away."""
    granted = cost("0.01" if lacking == "approval" else "2", "0.00001")
    await rig.access.access_asked(rig.people.asked(plan=PRIVATE_PLAN, epsilon="2", delta="0.00001"))
    await rig.decide("request-1", Decision(True, PRIVATE_PLAN.hash, granted=granted))
    await rig.set_budget(FREELY if lacking == "approval" else cost("0.01", "0.00001"))
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN))
    [(_, approved, reason)] = rig.listener.plans
    assert not approved
    approval = await rig.approval_of("request-1")
    assert not re.search(r"[0-9]", reason.replace(approval.approval_id, ""))


async def test_a_study_in_the_place_of_an_approved_request_changes_nothing(rig: AccessRig) -> None:
    """The coordinator chooses study ids: under a request's id, another plan would take its approval over."""
    await approved_request(rig)
    before = await rig.request("request-1")
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN, study_id="request-1"))
    assert rig.listener.plans[-1][:2] == ("request-1", False)
    assert await rig.request("request-1") == before
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN, study_id="study-2"))
    assert "study-2" not in {study_id for study_id, _, _ in rig.listener.plans}


async def test_asking_under_the_id_of_a_study_tells_nothing_of_it(rig: AccessRig) -> None:
    """What a study was granted is what its plan costs here."""
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN))
    await rig.decide(STUDY, Decision(True, PRIVATE_PLAN.hash))
    await rig.access.access_asked(rig.people.asked(STUDY, plan=PRIVATE_PLAN, epsilon="2", delta="0.1"))
    [told] = rig.listener.told
    assert (told.standing, told.granted, told.uses) == (Standing.DENIED, None, 0)
