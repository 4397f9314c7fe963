"""Nothing is trained that an owner did not approve, by the hash of what it approved."""

from __future__ import annotations

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from tests.fakes.federation import Federation, eventually, training_plan


async def test_a_hospital_that_denied_gets_no_order_and_the_others_go_on(federation: Federation) -> None:
    federation.hospitals["gamma"].habits.approves = False
    study = await federation.ended(await federation.launch(training_plan(rounds=1)))
    assert study.state == pb.STUDY_STATE_READY, study.failure
    gamma = federation.hospitals["gamma"]
    await eventually(lambda: gamma.ordered("study_ended"))
    assert {order.WhichOneof("order") for order in gamma.orders} == {"welcome", "proposal", "study_ended"}
    assert gamma.identity.uri not in {
        reader for opening in federation.parties[0].rounds.values() for reader in opening.reader_identities
    }
    assert study.members[2].problem == "our reason"


async def test_training_waits_for_every_owner(federation: Federation) -> None:
    gamma = federation.hospitals["gamma"]
    gamma.habits.approves = None
    study_id = await federation.launch(training_plan(rounds=1))
    await eventually(lambda: gamma.ordered("proposal"))

    async def others_decided() -> bool:
        members = (await federation.study(study_id)).members
        return [m.decision for m in members][:2] == [pb.DECISION_APPROVED] * 2

    await eventually(others_decided)
    assert (await federation.study(study_id)).state == pb.STUDY_STATE_AWAITING_APPROVAL
    assert not any(hospital.ordered("train") for hospital in federation.hospitals.values())
    gamma.decide(gamma.ordered("proposal")[0], approved=True)
    assert (await federation.ended(study_id)).state == pb.STUDY_STATE_READY


async def test_approval_does_not_start_training_before_the_model_is_dealt(federation: Federation) -> None:
    study_id = (await federation.create(training_plan(rounds=1))).study.study_id

    async def decided() -> bool:
        return all(m.decision == pb.DECISION_APPROVED for m in (await federation.study(study_id)).members)

    await eventually(decided)
    assert (await federation.study(study_id)).state == pb.STUDY_STATE_CREATED
    assert not federation.parties[0].rounds


async def test_a_decision_about_another_plan_is_ignored(federation: Federation) -> None:
    federation.hospitals["gamma"].habits.plan_hash = "0" * 64
    study_id = await federation.launch(training_plan())

    async def others_decided() -> bool:
        members = (await federation.study(study_id)).members
        return [m.decision for m in members][:2] == [pb.DECISION_APPROVED] * 2

    await eventually(others_decided)
    study = await federation.study(study_id)
    assert study.members[2].decision == pb.DECISION_PENDING
    assert study.state == pb.STUDY_STATE_AWAITING_APPROVAL


async def test_a_hospital_cannot_decide_for_another(federation: Federation) -> None:
    gamma = federation.hospitals["gamma"]
    gamma.habits.approves = None
    study_id = (await federation.create(training_plan(), hospitals=["alpha", "beta"])).study.study_id
    study = await federation.study(study_id)
    gamma.say(plan_decision=pb.PlanDecision(study_id=study_id, plan_hash=study.plan_hash, approved=False))
    gamma.publish("later", images=1)  # what a hospital says takes effect in order

    async def published() -> bool:
        search = pb.SearchDatasetsRequest(name_contains="later")
        return bool((await (await federation.stub()).SearchDatasets(search)).datasets)

    await eventually(published)
    assert pb.DECISION_DENIED not in [m.decision for m in (await federation.study(study_id)).members]


async def test_too_many_denials_end_the_study_in_plain_words(federation: Federation) -> None:
    for name in ("beta", "gamma"):
        federation.hospitals[name].habits.approves = False
    study = await federation.ended(await federation.launch(training_plan()))
    assert study.state == pb.STUDY_STATE_FAILED
    assert "2 of 3 hospitals denied" in study.failure
    assert not federation.parties[0].rounds


async def test_consent_withdrawn_in_training_counts_from_the_next_round(federation: Federation) -> None:
    alpha, gamma = federation.hospitals["alpha"], federation.hospitals["gamma"]
    held = []

    def hold_the_first(order: pb.CoordinatorOrder) -> bool:
        held.append(order)
        return len(held) > 1

    alpha.habits.trains = hold_the_first
    study_id = await federation.launch(training_plan(rounds=2))
    await eventually(lambda: held)
    gamma.decide(gamma.ordered("proposal")[0], approved=False)

    async def withdrawn() -> bool:
        return (await federation.study(study_id)).members[2].decision == pb.DECISION_DENIED

    await eventually(withdrawn)
    alpha.habits.trains = lambda _order: True
    alpha._obey(held[0])
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY
    assert [len(r.participant_identities) for r in study.rounds] == [3, 2, 2]
