"""Which hospitals train in a round, what they go on from, and that they end training when they agree to."""

from __future__ import annotations

from collections.abc import Sequence

from libs.fl.strategies.sampling import sampled
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from tests.fakes.federation import Federation, eventually, training_plan

STOPPING = {"early_stopping": {"patience": 1, "metric": "auc"}}


def stop_from(federation: Federation, number: int, *, best: int, names: Sequence[str]) -> None:
    for name in names:
        federation.hospitals[name].habits.stops = lambda now: best if now >= number else 0


async def test_training_ends_when_a_quorum_says_so_and_the_round_they_name_is_released(
    federation: Federation,
) -> None:
    stop_from(federation, 4, best=2, names=["alpha", "beta"])
    # The third neither contributes nor answers: nobody waits for it.
    federation.hospitals["gamma"].habits.trains = lambda order: (
        order.WhichOneof("order") != "train" or order.train.round.round < 4
    )
    study_id = await federation.launch(training_plan(rounds=9, round_deadline_s=600, **STOPPING))
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert (study.rounds_done, study.final_round) == (3, 2)
    assert "ended training before round 4" in study.stopped_because
    assert "AUC had not improved for 1 round" in study.stopped_because
    for hospital in federation.hospitals.values():
        (calibrate,), (release,) = hospital.ordered("calibrate"), hospital.ordered("release")
        assert (calibrate.model_id, release.base_model_id) == (f"{study_id}/round-2",) * 2
    assert all((study_id, 4, 0) not in party.contributions for party in federation.parties)


async def test_fewer_than_the_quorum_cannot_end_training(federation: Federation) -> None:
    stop_from(federation, 2, best=1, names=["alpha"])
    study = await federation.ended(await federation.launch(training_plan(rounds=2, **STOPPING)))
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert (study.rounds_done, study.final_round, study.stopped_because) == (2, 2, "")
    assert len(study.rounds[1].survivor_identities) == 2


async def test_hospitals_that_name_different_rounds_have_not_agreed(federation: Federation) -> None:
    for name, best in (("alpha", 1), ("beta", 2)):
        stop_from(federation, 3, best=best, names=[name])
    study = await federation.ended(await federation.launch(training_plan(rounds=3, **STOPPING)))
    assert study.state == pb.STUDY_STATE_FAILED
    assert "round 3" in study.failure.lower()


async def test_a_stop_that_names_a_round_that_is_not_over_changes_nothing(federation: Federation) -> None:
    stop_from(federation, 1, best=1, names=["alpha", "beta"])
    study = await federation.ended(
        await federation.launch(training_plan(rounds=2, round_deadline_s=0.4, **STOPPING))
    )
    assert (study.state, study.final_round, study.stopped_because) == (pb.STUDY_STATE_FAILED, 0, "")
    assert "fewer than 2 complete contributions" in study.failure


async def test_each_order_names_the_last_round_that_counted_for_its_hospital(federation: Federation) -> None:
    gamma = federation.hospitals["gamma"]
    for party in federation.parties:
        party.refuses.add(gamma.identity.uri)
    study_id = await federation.launch(training_plan(rounds=3))
    await federation.ended(study_id)
    told = {
        name: [order.counted_round for order in hospital.ordered("train")]
        for name, hospital in federation.hospitals.items()
    }
    assert told == {"alpha": [0, 1, 2], "beta": [0, 1, 2], "gamma": [0, 0, 0]}


async def test_a_round_asks_the_sampled_hospitals_only_and_the_release_asks_all(
    federation: Federation,
) -> None:
    plan = training_plan(rounds=4, client_fraction=0.5, seed=5)
    study = await federation.ended(await federation.launch(plan))
    assert study.state == pb.STUDY_STATE_READY, study.failure
    everybody = {hospital.identity.uri for hospital in federation.hospitals.values()}
    for held in study.rounds[:4]:
        drawn = sampled(everybody, fraction=0.5, quorum=2, seed=5, round_number=held.number)
        assert set(held.participant_identities) == drawn
    assert len({tuple(sorted(held.participant_identities)) for held in study.rounds[:4]}) > 1
    assert set(study.rounds[4].participant_identities) == everybody


async def test_a_hospital_that_failed_is_drawn_last_in_the_next_attempt(federation: Federation) -> None:
    everybody = {hospital.identity.uri: hospital for hospital in federation.hospitals.values()}
    drawn = sampled(everybody.keys(), fraction=0.1, quorum=2, seed=5, round_number=1)
    failing = everybody[sorted(drawn)[0]]
    failing.habits.fails_with = "No images are left."
    study = await federation.ended(
        await federation.launch(training_plan(rounds=1, client_fraction=0.1, seed=5))
    )
    assert failing.identity.uri not in study.rounds[0].survivor_identities
    assert len(study.rounds[0].survivor_identities) == 2
    await eventually(lambda: failing.ordered("train"))
