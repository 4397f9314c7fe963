"""Rounds end by answers, by absence or by the clock; and what happens below the quorum or without a party."""

from __future__ import annotations

import time
from fractions import Fraction

from libs.core.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from tests.fakes.federation import Federation, eventually, training_plan
from tests.integration.coordinator.conftest import Start


async def test_a_round_closes_by_its_timer_when_a_hospital_never_answers(federation: Federation) -> None:
    federation.hospitals["gamma"].habits.trains = lambda order: order.WhichOneof("order") == "release"
    began = time.monotonic()
    study = await federation.ended(await federation.launch(training_plan(rounds=1, round_deadline_s=0.6)))
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert list(study.rounds[0].survivor_identities) == [
        federation.hospitals[name].identity.uri for name in ("alpha", "beta")
    ]
    assert 0.6 <= time.monotonic() - began < 5


async def test_a_round_closes_early_without_a_hospital_that_has_been_gone_for_the_grace_time(
    federation: Federation,
) -> None:
    gamma = federation.hospitals["gamma"]
    gamma.habits.trains = lambda _order: False
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=600))
    await eventually(lambda: gamma.ordered("train"))
    await gamma.detach()
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY
    assert [len(r.participant_identities) for r in study.rounds] == [3, 2]


async def test_a_failed_hospital_is_not_waited_for_and_its_words_are_shown(federation: Federation) -> None:
    federation.hospitals["beta"].habits.fails_with = "No training images are left."
    study = await federation.ended(await federation.launch(training_plan(rounds=1, round_deadline_s=600)))
    assert study.state == pb.STUDY_STATE_READY
    assert study.members[1].problem == "No training images are left."
    assert len(study.rounds[0].survivor_identities) == 2


async def test_a_refused_contribution_is_told_to_its_hospital_and_to_the_study(
    federation: Federation,
) -> None:
    beta = federation.hospitals["beta"]
    for party in federation.parties:
        party.refuses.add(beta.identity.uri)
    study = await federation.ended(await federation.launch(training_plan(rounds=1)))
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert list(study.rounds[0].refused_identities) == [beta.identity.uri]
    assert len(study.rounds[0].survivor_identities) == 2
    (refused,) = beta.ordered("contribution_refused")
    assert refused.round.round == 1
    assert "max_norm" in study.members[1].problem
    assert not federation.hospitals["alpha"].ordered("contribution_refused")


async def test_a_hospital_that_reconnects_gets_its_outstanding_order_again(federation: Federation) -> None:
    gamma = federation.hospitals["gamma"]
    gamma.habits.trains = lambda _order: False
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=600))
    await eventually(lambda: gamma.ordered("train"))
    await gamma.detach()
    gamma.habits.trains = lambda _order: True
    await federation.attach("gamma")
    study = await federation.ended(study_id)
    first, second = gamma.ordered("train")
    assert first == second
    assert len(study.rounds[0].survivor_identities) == 3


async def test_a_stream_is_told_everything_once(federation: Federation) -> None:
    await federation.ended(await federation.launch(training_plan(rounds=3)))
    for hospital in federation.hospitals.values():
        await eventually(lambda hospital=hospital: hospital.ordered("study_ended"))
        kinds = [order.WhichOneof("order") for order in hospital.orders]
        assert kinds == ["welcome", "proposal", *["train"] * 3, "calibrate", "release", "study_ended"]


async def test_a_round_below_the_quorum_is_abandoned_and_tried_again_with_other_weights(
    federation: Federation,
) -> None:
    for name in ("beta", "gamma"):
        federation.hospitals[name].habits.trains = lambda order: (
            order.WhichOneof("order") == "release" or order.train.round.attempt == 1
        )
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=0.5))
    gamma = federation.hospitals["gamma"]
    await eventually(lambda: gamma.ordered("train"))
    await gamma.detach()
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert federation.parties[0].abandoned == [(study_id, 1, 0)]
    retried = federation.parties[0].rounds[study_id, 1, 1]
    weights = [Fraction(p.weight.numerator, p.weight.denominator) for p in retried.participants]
    assert weights == [Fraction(1, 3), Fraction(2, 3)]


async def test_what_a_hospital_says_about_an_earlier_attempt_does_not_count(federation: Federation) -> None:
    """Without the attempt, attempt 1 would close at once, on the word given for attempt 0."""
    late = federation.hospitals["gamma"]
    for name in ("beta", "gamma"):
        federation.hospitals[name].habits.trains = lambda _order: False
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=0.5))
    await eventually(lambda: len(late.ordered("train")) == 2)
    for name in ("beta", "gamma"):
        federation.hospitals[name].say(
            contribution_sent=pb.ContributionSent(study_id=study_id, round=1, attempt=0)
        )
    await eventually(lambda: len(late.ordered("train")) == 3)
    opened = [o.deadline.ToNanoseconds() for o in late.ordered("train")]
    assert opened[2] - opened[1] >= 0.5e9


async def test_a_round_that_falls_short_every_time_ends_the_study_and_says_why(start: Start) -> None:
    federation = await start(max_round_attempts=2)
    for name in ("alpha", "beta"):
        await federation.add_hospital(name, fails_with=f"{name} has no disk space left.")
    study = await federation.ended(await federation.launch(training_plan()))
    assert study.state == pb.STUDY_STATE_FAILED
    assert "2 attempts" in study.failure
    assert "alpha has no disk space left." in study.failure
    assert "Beta: " in study.failure


async def test_closing_is_repeated_with_a_fresh_id_when_a_party_was_unavailable(
    federation: Federation,
) -> None:
    federation.parties[1].failures["CloseRound"] = [Unavailable("restarting"), DeadlineExceeded("slow")]
    study = await federation.ended(await federation.launch(training_plan(rounds=1)))
    assert study.state == pb.STUDY_STATE_READY
    computations = federation.parties[0].computations
    assert len(computations) == len(set(computations)) == 4  # round 1 three times, the release once


async def test_a_party_restarted_between_rounds_only_delays_the_study(federation: Federation) -> None:
    alpha = federation.hospitals["alpha"]
    alpha.habits.trains = lambda _order: False
    study_id = await federation.launch(training_plan(rounds=1))
    await eventually(lambda: alpha.ordered("train"))
    await federation.stop_party(2)
    alpha.habits.trains = lambda _order: True
    alpha._obey(alpha.orders[-1])

    async def closing() -> bool:
        return len(federation.parties[0].computations) >= 2

    await eventually(closing)
    await federation.restart_party(2)
    assert (await federation.ended(study_id)).state == pb.STUDY_STATE_READY


async def test_a_party_that_stays_away_ends_the_study_by_its_name(start: Start) -> None:
    federation = await start(party_patience_s=0.5)
    for name in ("alpha", "beta"):
        await federation.add_hospital(name)
    study_id = (await federation.create(training_plan())).study.study_id
    await federation.stop_party(1)
    stub = await federation.stub()
    await stub.StartStudy(pb.StartStudyRequest(study_id=study_id))
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_FAILED
    assert study.failure.startswith("Party 1: ")


async def test_a_lasting_refusal_by_a_party_ends_the_study_at_once(federation: Federation) -> None:
    refusal = FailedPrecondition("The base version was never dealt.")
    federation.parties[0].failures["OpenRound"] = [refusal]
    study = await federation.ended(await federation.launch(training_plan()))
    assert study.state == pb.STUDY_STATE_FAILED
    assert study.failure == "Party 0: The base version was never dealt."


async def test_parties_that_disagree_about_the_survivors_end_the_study(federation: Federation) -> None:
    federation.parties[2].contribute = lambda attempt, hospital: (  # type: ignore[method-assign]
        federation.parties[2].contributions.setdefault(attempt, set()).add(hospital)
        if not hospital.endswith("gamma")
        else None
    )
    study = await federation.ended(await federation.launch(training_plan()))
    assert study.state == pb.STUDY_STATE_FAILED
    assert "one outcome of a round" in study.failure


async def test_a_study_without_enough_hospitals_online_gives_up_in_the_end(start: Start) -> None:
    federation = await start(quorum_patience_s=0.5)
    for name in ("alpha", "beta"):
        await federation.add_hospital(name)
    study_id = (await federation.create(training_plan())).study.study_id

    async def decided() -> bool:
        return all(m.decision == pb.DECISION_APPROVED for m in (await federation.study(study_id)).members)

    await eventually(decided)
    await federation.hospitals["beta"].detach()
    await (await federation.stub()).StartStudy(pb.StartStudyRequest(study_id=study_id))
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_FAILED
    assert "1 of the 2 hospitals" in study.failure


async def test_a_calibration_below_the_quorum_ends_the_study_and_names_the_kept_weights(
    federation: Federation,
) -> None:
    for name in ("alpha", "beta"):
        federation.hospitals[name].habits.bounds = None
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=0.6))
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_FAILED
    assert f"{study_id}/round-1" in study.failure
