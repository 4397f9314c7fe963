"""Rounds over real mTLS and real disks: what the three parties make of the hospitals' shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.errors import (
    AlreadyExists,
    Bug,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TrefoilError,
    Unavailable,
)
from libs.core.ids import PARTIES, PartyId, new_id
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from services.smpc_party.domain import RoundKey
from services.smpc_party.limits import PredictionLimits
from services.smpc_party.wire import RING_CODES, round_spec
from tests.fakes.party_rig import (
    CLINIC,
    FOR_THE_CLINIC,
    HOSPITALS,
    RELEASED,
    SCIENTIST,
    STUDY,
    WEIGHTS,
    PartyRig,
    SmallModel,
    approved_result,
    contribution_ref,
    metrics_ref,
    model_ref,
    open_request,
    round_ref,
    terms_of,
)

LENGTH = 1000
SCALE = 2**20
AGGREGATED = party_pb2.CloseRoundResponse.OUTCOME_AGGREGATED
BELOW_QUORUM = party_pb2.CloseRoundResponse.OUTCOME_BELOW_QUORUM

BASE = np.random.default_rng(1).normal(size=LENGTH)
UPDATES = np.random.default_rng(2).normal(size=(3, LENGTH))
KEY = RoundKey(STUDY, 1)
P0 = PartyId(0)
METRICS = np.array([[10, 20, 30, 40], [1, 2, 3, 4], [100, 200, 300, 400]], dtype=np.uint32)


def encode(values: np.ndarray) -> np.ndarray:
    return np.rint(values * SCALE).astype(np.int64).astype(np.uint32)


def decode(elements: np.ndarray) -> np.ndarray:
    return elements.view(np.int32) / SCALE


def contribution(hospital: int) -> np.ndarray:
    return np.concatenate([encode(float(WEIGHTS[hospital]) * UPDATES[hospital]), METRICS[hospital]])


def expected_average(hospitals: Sequence[int]) -> np.ndarray:
    """The plain weighted average over those who sent something, added to the base."""
    weights = np.array([float(WEIGHTS[h]) for h in hospitals])
    return BASE + (weights[:, None] * UPDATES[list(hospitals)]).sum(axis=0) / weights.sum()


async def open_round(rig: PartyRig, number: int = 1, **fields: Any) -> None:
    if number == 1:
        await rig.deal_model(encode(BASE), model_id=f"{STUDY}/v0")
    await rig.tell_all("OpenRound", open_request(number, length=LENGTH, **fields))


async def contribute(rig: PartyRig, hospitals: Sequence[int], number: int = 1) -> None:
    for hospital in hospitals:
        await rig.deal(contribution(hospital), contribution_ref(number), HOSPITALS[hospital])


async def result_of(rig: PartyRig, number: int = 1) -> np.ndarray:
    return decode(await rig.fetch(model_ref(f"{STUDY}/round-{number}"), HOSPITALS[0]))


def files(rig: PartyRig, party: PartyId) -> list[Path]:
    return list((rig.folder / f"party-{party}" / "shares").iterdir())


async def test_the_result_is_the_weighted_average_and_the_metrics_are_the_sum(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1, 2])
    for answer in await rig.close_round(1):
        assert answer.outcome == AGGREGATED
        assert answer.result_model_id == f"{STUDY}/round-1"
        assert answer.survivor_identities == [hospital.uri for hospital in HOSPITALS]
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]), atol=4 / SCALE)
    metrics = await rig.fetch(metrics_ref(1), SCIENTIST)
    assert metrics.tolist() == METRICS.sum(axis=0).tolist()


@pytest.mark.parametrize("survivors", [[0, 1], [1, 2], [0, 2]])
async def test_a_dropout_leaves_the_average_over_the_survivors(rig: PartyRig, survivors: list[int]) -> None:
    await open_round(rig)
    await contribute(rig, survivors)
    answers = await rig.close_round(1)
    assert {tuple(a.survivor_identities) for a in answers} == {tuple(HOSPITALS[h].uri for h in survivors)}
    assert sum(answer.bytes_sent_to_peers for answer in answers) > 4 * LENGTH
    np.testing.assert_allclose(await result_of(rig), expected_average(survivors), atol=8 / SCALE)
    metrics = await rig.fetch(metrics_ref(1), SCIENTIST)
    assert metrics.tolist() == METRICS[survivors].sum(axis=0).tolist(), "metrics must not be reweighted"


async def test_a_contribution_that_one_party_lacks_does_not_count(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1, 2])
    party = rig.parties[PartyId(1)]
    key = party._index.contributions
    party._index.contributions = lambda k: [c for c in key(k) if c.hospital != HOSPITALS[2]]  # type: ignore[method-assign]
    answers = await rig.close_round(1)
    assert {tuple(a.survivor_identities) for a in answers} == {(HOSPITALS[0].uri, HOSPITALS[1].uri)}
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1]), atol=8 / SCALE)


async def test_below_the_quorum_nothing_is_made_and_the_round_stays_open(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [1])
    assert {answer.outcome for answer in await rig.close_round(1)} == {BELOW_QUORUM}
    with pytest.raises(NotFound):
        await result_of(rig)
    await contribute(rig, [0])
    assert {answer.outcome for answer in await rig.close_round(1)} == {AGGREGATED}


async def test_the_next_round_builds_on_the_last_one(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1, 2])
    await rig.close_round(1)
    await open_round(rig, 2, base_model_id=f"{STUDY}/round-1")
    await contribute(rig, [0, 1, 2], number=2)
    await rig.close_round(2)
    twice = 2 * expected_average([0, 1, 2]) - BASE
    np.testing.assert_allclose(await result_of(rig, 2), twice, atol=8 / SCALE)


async def test_a_round_without_a_base_makes_the_average_itself(rig: PartyRig) -> None:
    await open_round(rig, base_model_id="", metrics_length=0)
    for hospital in range(3):
        await rig.deal(contribution(hospital)[:LENGTH], contribution_ref(1), HOSPITALS[hospital])
    await rig.close_round(1)
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]) - BASE, atol=4 / SCALE)
    with pytest.raises(NotFound):
        await rig.fetch(metrics_ref(1), SCIENTIST)


async def test_the_same_contribution_twice_counts_once_and_another_is_refused(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1])
    upload = await rig.deal(contribution(2), contribution_ref(1), HOSPITALS[2])
    before = [len(files(rig, party)) for party in PARTIES]
    assert await rig.deal(contribution(2), contribution_ref(1), HOSPITALS[2], upload_id=upload) == upload
    with pytest.raises(AlreadyExists):
        await rig.deal(contribution(2), contribution_ref(1), HOSPITALS[2])
    assert [len(files(rig, party)) for party in PARTIES] == before
    await rig.close_round(1)
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]), atol=4 / SCALE)


async def test_a_late_contribution_is_refused(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1])
    await rig.close_round(1)
    with pytest.raises(FailedPrecondition, match="closed"):
        await contribute(rig, [2])


async def test_closing_again_gives_the_same_answer_and_contributions_are_gone(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1])
    first = await rig.close_round(1)
    assert await rig.close_round(1) == first
    for party in PARTIES:
        assert len(files(rig, party)) == 3  # base, result, metrics
        assert not rig.parties[party]._index.contributions(KEY)


async def test_an_abandoned_round_is_forgotten_with_its_contributions(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1, 2])
    request = party_pb2.AbandonRoundRequest(round=round_ref(1))
    await rig.tell_all("AbandonRound", request)
    await rig.tell_all("AbandonRound", request)
    assert [len(files(rig, party)) for party in PARTIES] == [1, 1, 1]
    with pytest.raises(NotFound):
        await rig.close_round(1)


async def test_a_contribution_to_an_earlier_try_is_refused(rig: PartyRig) -> None:
    """Weights differ between tries: one of the first try, added in the second, would falsify the average."""
    await open_round(rig)
    await rig.tell_all("AbandonRound", party_pb2.AbandonRoundRequest(round=round_ref(1)))
    await rig.tell_all("OpenRound", open_request(1, length=LENGTH, round=round_ref(1, attempt=1)))
    with pytest.raises(FailedPrecondition, match="Try 0"):
        await rig.deal(contribution(0), contribution_ref(1), HOSPITALS[0])
    for hospital in range(3):
        await rig.deal(contribution(hospital), contribution_ref(1, attempt=1), HOSPITALS[hospital])
    await rig.close_round(1, attempt=1)
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]), atol=4 / SCALE)


async def test_an_order_about_an_earlier_try_that_comes_late_changes_nothing(rig: PartyRig) -> None:
    await open_round(rig, round=round_ref(1, attempt=1))
    for hospital in range(3):
        await rig.deal(contribution(hospital), contribution_ref(1, attempt=1), HOSPITALS[hospital])
    with pytest.raises(FailedPrecondition, match="Try 0"):
        await rig.close_round(1, attempt=0)
    with pytest.raises(FailedPrecondition, match="Try 0"):
        await rig.tell_all("AbandonRound", party_pb2.AbandonRoundRequest(round=round_ref(1)))
    await rig.close_round(1, attempt=1)
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]), atol=4 / SCALE)


@pytest.mark.parametrize("anew", [{"round": round_ref(1, attempt=1)}, {"quorum": 3}])
async def test_a_contribution_that_arrives_while_its_round_is_opened_anew_is_refused(
    rig: PartyRig, anew: dict[str, Any]
) -> None:
    """It was checked against the round before, and the one that is there now may be weaker."""
    await open_round(rig)
    index = rig.parties[P0]._index
    put = index.put_contribution

    def reopen_then_put(*args: Any, **kwargs: Any) -> bool:
        index.put_contribution = put  # type: ignore[method-assign]
        index.forget_round(KEY, attempt=0)
        limits = PredictionLimits(1 << 30, 1)
        index.open_round(round_spec(open_request(1, length=LENGTH, **anew), limits=limits))
        return put(*args, **kwargs)

    index.put_contribution = reopen_then_put  # type: ignore[method-assign]
    with pytest.raises(FailedPrecondition):
        await contribute(rig, [0])
    assert index.contributions(KEY) == []
    assert len(files(rig, P0)) == 1


async def test_abandoning_a_closed_round_keeps_its_result(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1, 2])
    await rig.close_round(1)
    await rig.tell_all("AbandonRound", party_pb2.AbandonRoundRequest(round=round_ref(1)))
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]), atol=4 / SCALE)


async def test_shares_survive_a_restart(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1])
    for party in PARTIES:
        await rig.stop(party)
        await rig.start(party)
    await contribute(rig, [2])
    await rig.close_round(1)
    for party in PARTIES:
        await rig.stop(party)
        await rig.start(party)
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]), atol=4 / SCALE)


# ---------------------------------------------------------------- parties that die while closing


class Died(Exception):
    """Stands for a party that is killed at this point."""


def die_once(rig: PartyRig, party: PartyId, method: str) -> None:
    """Make the party's next call of an index method fail before it does anything."""
    index = rig.parties[party]._index
    original = getattr(index, method)

    def dying(*_: object) -> None:
        setattr(index, method, original)
        raise Died

    setattr(index, method, dying)


async def restart(rig: PartyRig, party: PartyId) -> None:
    await rig.stop(party)
    await rig.start(party)


@pytest.mark.parametrize("survivors", [[0, 1, 2], [0, 2]])
@pytest.mark.parametrize("step", ["prepare", "commit"])
async def test_a_party_that_dies_while_closing_is_brought_along_by_a_retry(
    rig: PartyRig, step: str, survivors: list[int]
) -> None:
    await open_round(rig)
    await contribute(rig, survivors)
    die_once(rig, PartyId(1), step)
    with pytest.raises(TrefoilError):
        await rig.close_round(1)
    await restart(rig, PartyId(1))
    answers = await rig.close_round(1)
    assert {answer.outcome for answer in answers} == {AGGREGATED}
    np.testing.assert_allclose(await result_of(rig), expected_average(survivors), atol=8 / SCALE)
    assert (await rig.fetch(metrics_ref(1), SCIENTIST)).tolist() == METRICS[survivors].sum(axis=0).tolist()


async def test_all_three_dying_before_the_commit_adopt_what_they_prepared(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 2])
    for party in PARTIES:
        die_once(rig, party, "commit")
    with pytest.raises(Bug):
        await rig.close_round(1)
    prepared = [rig.parties[p]._index.round(KEY).prepared for p in PARTIES]
    for party in PARTIES:
        await restart(rig, party)
    await rig.close_round(1)
    assert [rig.parties[p]._index.round(KEY).prepared for p in PARTIES] == prepared
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 2]), atol=8 / SCALE)


async def test_a_party_that_is_down_makes_closing_unavailable_and_loses_nothing(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1, 2])
    await rig.stop(PartyId(2))
    with pytest.raises(Unavailable):
        await rig.close_round(1)
    await rig.start(PartyId(2))
    await rig.close_round(1)
    np.testing.assert_allclose(await result_of(rig), expected_average([0, 1, 2]), atol=4 / SCALE)


async def test_parties_that_were_told_different_rounds_refuse_to_add(rig: PartyRig) -> None:
    await rig.deal_model(encode(BASE), model_id=f"{STUDY}/v0")
    for party in PARTIES:
        quorum = 3 if party == 2 else 2
        await rig.tell(party, "OpenRound", open_request(1, length=LENGTH, quorum=quorum))
    await contribute(rig, [0, 1, 2])
    with pytest.raises(FailedPrecondition, match="other terms"):
        await rig.close_round(1)


async def test_a_computation_id_is_good_for_one_attempt(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0])
    request = party_pb2.CloseRoundRequest(round=round_ref(1), computation_id=new_id("close"))
    await rig.tell_all("CloseRound", request)
    with pytest.raises(FailedPrecondition, match="used before"):
        await rig.tell_all("CloseRound", request)


# ---------------------------------------------------------------- what the coordinator may not say


async def test_a_round_on_a_missing_or_unfit_base_is_refused(rig: PartyRig) -> None:
    with pytest.raises(NotFound):
        await rig.tell_all("OpenRound", open_request(1, length=LENGTH))
    await rig.deal_model(encode(BASE), model_id=f"{STUDY}/v0")
    with pytest.raises(FailedPrecondition, match="do not fit"):
        await rig.tell_all("OpenRound", open_request(1, length=LENGTH + 1))


async def test_opening_again_changes_nothing_and_otherwise_is_refused(rig: PartyRig) -> None:
    await open_round(rig)
    await rig.tell_all("OpenRound", open_request(1, length=LENGTH))
    with pytest.raises(AlreadyExists):
        await rig.tell_all("OpenRound", open_request(1, length=LENGTH, quorum=3))
    with pytest.raises(AlreadyExists):
        await rig.tell_all(
            "OpenRound", open_request(2, length=LENGTH, result_model_id=f"{STUDY}/v0", base_model_id="")
        )


async def test_only_readers_may_fetch_and_contributions_nobody(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1, 2])
    with pytest.raises(FailedPrecondition):
        await rig.fetch(metrics_ref(1), SCIENTIST)
    await rig.close_round(1)
    with pytest.raises(PermissionDenied):
        await rig.fetch(model_ref(f"{STUDY}/round-1"), SCIENTIST)
    with pytest.raises(PermissionDenied):
        await rig.fetch(metrics_ref(1), HOSPITALS[0])
    with pytest.raises(PermissionDenied):
        await rig.fetch(contribution_ref(1), HOSPITALS[0])


async def test_a_coordinator_cannot_have_one_hospitals_update_added_to_nothing(rig: PartyRig) -> None:
    """A round of one hospital, that the coordinator's own client reads, would be that hospital's update."""
    alone = party_pb2.Participant(
        hospital_identity=HOSPITALS[0].uri, weight=types_pb2.Fraction(numerator=1, denominator=1)
    )
    await open_round(
        rig, participants=[alone], quorum=1, reader_identities=[CLINIC.uri], metrics_reader_identities=[]
    )
    with pytest.raises(FailedPrecondition, match="lower quorum and has other readers"):
        await contribute(rig, [0])
    assert [len(files(rig, party)) for party in PARTIES] == [1, 1, 1]  # the base alone


STRANGER = "spiffe://trefoil.local/hospital/stranger"
WEAKER: dict[str, tuple[dict[str, Any], str]] = {
    "quorum": ({"quorum": 3}, "lower quorum"),
    "hospitals": ({"hospital_identities": [h.uri for h in HOSPITALS[:2]] + [STRANGER]}, "other hospitals"),
    "readers": ({"reader_identities": [h.uri for h in HOSPITALS[1:]]}, "other readers than"),
    "metrics readers": ({"metrics_reader_identities": [h.uri for h in HOSPITALS]}, "readers of its metrics"),
    "use": ({"use": types_pb2.ModelUse(asker_identities=[SCIENTIST.uri])}, "lets others ask"),
    "weight": ({"weight": types_pb2.Fraction(numerator=1, denominator=3)}, "weighs it differently"),
    "metrics": ({"metrics_length": 3}, "more or less metrics"),
    "compiled plan": ({"compiled_plan_hash": "c" * 64}, "by another plan"),
    "check": ({"check": types_pb2.ContributionCheck(max_norm=9)}, "checks contributions otherwise"),
    "comparison": ({"check": types_pb2.ContributionCheck(same=True)}, "compares contributions otherwise"),
    "noise": ({"noise": types_pb2.SumNoise(std=9)}, "adds other noise"),
    "name": ({"result_model_id": f"{STUDY}/released"}, "names the result otherwise"),
}


@pytest.mark.parametrize("name", WEAKER)
async def test_a_round_weaker_than_the_hospital_approved_takes_no_contribution(
    rig: PartyRig, name: str
) -> None:
    fields, rule = WEAKER[name]
    await open_round(rig, use=FOR_THE_CLINIC)
    with pytest.raises(FailedPrecondition, match=rule):
        await rig.deal(
            contribution(0), contribution_ref(1), HOSPITALS[0], terms=terms_of(HOSPITALS[0], **fields)
        )
    with pytest.raises(InvalidInput, match="terms"):
        await rig.deal(contribution(0), contribution_ref(1), HOSPITALS[0], terms=None)
    await contribute(rig, [0])


async def test_a_coordinator_cannot_have_an_update_added_up_as_metrics(rig: PartyRig) -> None:
    """The scientist may read metrics even where the plan lets nobody download the model."""
    update, metrics = LENGTH, len(METRICS[0])
    await open_round(rig, base_model_id="", update_length=1, metrics_length=update + metrics - 1)
    terms = terms_of(HOSPITALS[0], metrics_length=metrics)
    with pytest.raises(FailedPrecondition, match="more or less metrics"):
        await rig.deal(contribution(0), contribution_ref(1), HOSPITALS[0], terms=terms)


async def test_a_released_model_is_asked_by_the_plan_and_under_the_name_that_hospitals_know(
    rig: PartyRig, small_model: SmallModel
) -> None:
    """Rules of hospitals go by the name: under another one, no revocation would reach the model."""
    plan, length = small_model.plan.to_json(), len(small_model.parameters)
    about = {"plan": plan, "ring": RING_CODES[small_model.plan.ring], "base_model_id": ""}
    nobody: dict[str, Any] = {"reader_identities": [], "metrics_reader_identities": []}
    request = open_request(9, length=length, metrics=0, result_model_id=RELEASED, **about, **nobody)
    await rig.tell_all("OpenRound", request)
    approved = approved_result(request)
    for broken, rule in {"compiled_plan_hash": "another plan", "result_model_id": "otherwise"}.items():
        terms = terms_of(HOSPITALS[0], **{**approved, broken: f"{STUDY}/other"})
        with pytest.raises(FailedPrecondition, match=rule):
            await rig.deal(small_model.parameters, contribution_ref(9), HOSPITALS[0], terms=terms)
    await rig.deal(
        small_model.parameters, contribution_ref(9), HOSPITALS[0], terms=terms_of(HOSPITALS[0], **approved)
    )


async def test_no_single_share_tells_the_sum(rig: PartyRig) -> None:
    """Every party's share of the result is uniform; together they are the result."""
    await open_round(rig)
    await contribute(rig, [0, 1])
    await rig.close_round(1)
    for party in PARTIES:
        record = rig.parties[party]._index.model(f"{STUDY}/round-1")
        share = rig.parties[party]._shares.load(record.share)
        top = np.bincount(share >> 28, minlength=16)
        assert ((top - LENGTH / 16) ** 2 / (LENGTH / 16)).sum() < 50  # chi square, 15 degrees of freedom
