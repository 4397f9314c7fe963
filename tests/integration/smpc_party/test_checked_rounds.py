"""Rounds whose contributions are checked before they are added, over three real parties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound, TrefoilError
from libs.core.ids import PARTIES, PartyId, new_id
from libs.mpc.program import Program
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from services.smpc_party import aggregation
from services.smpc_party.domain import RoundKey, RoundState
from tests.fakes.party_rig import (
    HOSPITALS,
    SCIENTIST,
    STUDY,
    WEIGHTS,
    PartyRig,
    contribution_ref,
    metrics_ref,
    model_ref,
    open_request,
    round_ref,
    terms_of,
)

LENGTH = 700
SCALE = 2**20
MAX_NORM = 3 * SCALE
CHECK = types_pb2.ContributionCheck(max_norm=MAX_NORM)
KEY = RoundKey(STUDY, 1)
AGGREGATED = party_pb2.CloseRoundResponse.OUTCOME_AGGREGATED
BELOW_QUORUM = party_pb2.CloseRoundResponse.OUTCOME_BELOW_QUORUM

_RAW = np.random.default_rng(3).normal(size=(3, LENGTH))
UPDATES = 2.99 * _RAW / np.linalg.norm(_RAW, axis=1, keepdims=True)
"""As long as the round allows."""
METRICS = np.array([[10, 20, 30, 40], [1, 2, 3, 4], [100, 200, 300, 2**27 - 1]], dtype=np.uint32)


def contribution(hospital: int, *, factor: float = 1.0) -> np.ndarray:
    update = np.rint(factor * float(WEIGHTS[hospital]) * UPDATES[hospital] * SCALE)
    return np.concatenate([update.astype(np.int64).astype(np.uint32), METRICS[hospital]])


def with_one(value: int, place: int) -> np.ndarray:
    changed = contribution(1)
    changed[place] = value
    return changed


ATTACKS = {
    "twice as long": contribution(1, factor=2),
    "a thousand times, with the sign flipped": contribution(1, factor=-1000),
    "a single 2^31": with_one(2**31, 5),
    "random": np.random.default_rng(4).integers(0, 2**32, LENGTH + 4, dtype=np.uint32),
    "a metric below zero": with_one(2**32 - 2**20, LENGTH),
    "a metric too large": with_one(2**28, LENGTH + 3),
}


async def open_round(rig: PartyRig, **fields: Any) -> None:
    fields = {"base_model_id": "", "check": CHECK, **fields}
    await rig.tell_all("OpenRound", open_request(1, length=LENGTH, **fields))


async def contribute(rig: PartyRig, hospitals: Sequence[int] = (0, 1, 2), **other: np.ndarray) -> None:
    """What each sends, or instead what `other` says for its name."""
    for hospital in hospitals:
        identity = HOSPITALS[hospital]
        vector = other.get(identity.name, contribution(hospital))
        await rig.deal(vector, contribution_ref(1), identity)


async def assert_result(rig: PartyRig, survivors: Sequence[int]) -> None:
    weights = np.array([float(WEIGHTS[h]) for h in survivors])
    expected = (weights[:, None] * UPDATES[list(survivors)]).sum(axis=0) / weights.sum()
    result = (await rig.fetch(model_ref(f"{STUDY}/round-1"), HOSPITALS[0])).view(np.int32) / SCALE
    np.testing.assert_allclose(result, expected, atol=8 / SCALE)
    metrics = await rig.fetch(metrics_ref(1), SCIENTIST)
    assert metrics.tolist() == METRICS[list(survivors)].sum(axis=0).tolist()


def refused_by(answers: Sequence[party_pb2.CloseRoundResponse]) -> list[str]:
    """The refused hospitals' names, on which all three parties agree."""
    assert len({tuple(answer.refused_identities) for answer in answers}) == 1
    uris = answers[0].refused_identities
    return [hospital.name for hospital in HOSPITALS if hospital.uri in uris]


async def test_honest_contributions_pass_a_check_and_are_averaged_as_without(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig)
    answers = await rig.close_round(1)
    assert {answer.outcome for answer in answers} == {AGGREGATED}
    assert refused_by(answers) == []
    await assert_result(rig, [0, 1, 2])


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_contribution_that_breaks_the_check_is_left_out_and_named(rig: PartyRig, attack: str) -> None:
    await open_round(rig)
    await contribute(rig, beta=ATTACKS[attack])
    answers = await rig.close_round(1)
    assert {answer.outcome for answer in answers} == {AGGREGATED}
    assert refused_by(answers) == ["beta"]
    assert {tuple(a.survivor_identities) for a in answers} == {(HOSPITALS[0].uri, HOSPITALS[2].uri)}
    await assert_result(rig, [0, 2])
    model = rig.parties[PartyId(0)]._index.model(f"{STUDY}/round-1").spec
    assert HOSPITALS[1] not in model.hospitals, "its rules count for a model that nothing of it is in"


async def test_without_a_check_the_same_contribution_is_added(rig: PartyRig) -> None:
    await open_round(rig, check=None)
    await contribute(rig, beta=ATTACKS["twice as long"])
    answers = await rig.close_round(1)
    assert refused_by(answers) == []
    assert len(answers[0].survivor_identities) == 3


async def test_too_few_after_the_check_make_nothing_and_leave_the_round_open(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, [0, 1], beta=ATTACKS["a single 2^31"])
    answers = await rig.close_round(1)
    assert {answer.outcome for answer in answers} == {BELOW_QUORUM}
    assert refused_by(answers) == ["beta"]
    with pytest.raises(NotFound):
        await rig.fetch(model_ref(f"{STUDY}/round-1"), HOSPITALS[0])
    await contribute(rig, [2])
    answers = await rig.close_round(1)
    assert {answer.outcome for answer in answers} == {AGGREGATED}
    assert refused_by(answers) == ["beta"]
    await assert_result(rig, [0, 2])


async def test_a_closed_round_says_again_whom_it_refused_also_after_restarts(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, gamma=contribution(2, factor=5))
    first = await rig.close_round(1)
    for party in PARTIES:
        await rig.stop(party)
        await rig.start(party)
    assert await rig.close_round(1) == first
    assert refused_by(first) == ["gamma"]


def watch_coins(monkeypatch: pytest.MonkeyPatch, rig: PartyRig) -> list[bytes]:
    """The seeds that party 0 tosses; fails unless each party takes no contribution any more by then."""
    seeds: list[bytes] = []
    toss = aggregation.toss_coin

    def watched(me: PartyId, computation_id: str) -> Program[bytes]:
        states = {rig.parties[party]._index.round(KEY).state for party in PARTIES}
        assert states == {RoundState.CLOSING}
        seed = yield from toss(me, computation_id)
        if me == PARTIES[0]:
            seeds.append(seed)
        return seed

    monkeypatch.setattr(aggregation, "toss_coin", watched)
    return seeds


@pytest.mark.parametrize("step", ["prepare", "commit"])
async def test_a_retry_after_a_death_tosses_a_new_coin_or_adopts_what_was_prepared(
    rig: PartyRig, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = watch_coins(monkeypatch, rig)
    await open_round(rig)
    await contribute(rig, beta=ATTACKS["random"])
    index = rig.parties[PartyId(1)]._index

    def dying(*_: object) -> None:
        raise OSError("killed")

    monkeypatch.setattr(index, step, dying)
    with pytest.raises(TrefoilError):
        await rig.close_round(1)
    await rig.stop(PartyId(1))
    await rig.start(PartyId(1))
    answers = await rig.close_round(1)
    assert refused_by(answers) == ["beta"]
    await assert_result(rig, [0, 2])
    assert len(set(seeds)) == len(seeds) == (2 if step == "prepare" else 1)


async def test_no_contribution_is_taken_once_the_coin_is_tossed(
    rig: PartyRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = watch_coins(monkeypatch, rig)
    await open_round(rig)
    await contribute(rig, [0, 1])
    check, refused = aggregation.check_norms, []

    def interrupted(me: PartyId, *rest: Any) -> Program[tuple[bool, ...]]:
        raise OSError("killed while checking")
        yield

    monkeypatch.setattr(aggregation, "check_norms", interrupted)
    with pytest.raises(TrefoilError):
        await rig.close_round(1)
    with pytest.raises(FailedPrecondition):
        await contribute(rig, [2])
    monkeypatch.setattr(aggregation, "check_norms", check)
    refused = refused_by(await rig.close_round(1))
    assert refused == []
    assert len(set(seeds)) == 2
    await assert_result(rig, [0, 1])


async def test_parties_that_were_told_different_checks_refuse_to_add(rig: PartyRig) -> None:
    for party in PARTIES:
        norm = MAX_NORM if party else 2 * MAX_NORM
        check = types_pb2.ContributionCheck(max_norm=norm)
        await rig.tell(party, "OpenRound", open_request(1, length=LENGTH, base_model_id="", check=check))
    for hospital in (0, 1):
        with pytest.raises(FailedPrecondition, match="checks contributions otherwise"):
            await contribute(rig, [hospital])
    request = party_pb2.CloseRoundRequest(round=round_ref(1), computation_id=new_id("close"))
    with pytest.raises(FailedPrecondition, match="other terms"):
        await rig.tell_all("CloseRound", request)


@pytest.mark.parametrize(
    "fields",
    [
        {"ring": types_pb2.RING_64},
        {"check": types_pb2.ContributionCheck(max_norm=2**24)},
        {"metrics_length": 2**16 + 1},
    ],
)
async def test_a_check_that_does_not_fit_the_ring_is_refused_at_once(
    rig: PartyRig, fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await open_round(rig, **fields)


# ------------------------------------------------------------ noise on the sum

NOISE = types_pb2.SumNoise(std=SCALE // 8)


async def test_the_three_parties_put_the_promised_noise_on_the_sum_and_none_on_metrics(rig: PartyRig) -> None:
    await open_round(rig, noise=NOISE)
    for hospital in range(3):
        await rig.deal(contribution(hospital), contribution_ref(1), HOSPITALS[hospital])
    assert {answer.outcome for answer in await rig.close_round(1)} == {AGGREGATED}
    sent = sum(contribution(hospital).astype(np.int64) for hospital in range(3)).astype(np.uint32)
    opened = await rig.fetch(model_ref(f"{STUDY}/round-1"), HOSPITALS[0])
    noise = (opened - sent[:LENGTH]).view(np.int32).astype(np.float64) / NOISE.std
    chi_square = float((noise**2).sum()) / 1.5  # the noise of three parties, of which two are enough
    assert 1e-6 < stats.chi2.cdf(chi_square, LENGTH) < 1 - 1e-6
    metrics = await rig.fetch(metrics_ref(1), SCIENTIST)
    assert metrics.tolist() == METRICS.sum(axis=0, dtype=np.uint32).tolist()


async def test_a_hospital_that_was_promised_noise_takes_part_in_no_round_without(rig: PartyRig) -> None:
    await open_round(rig)
    terms = terms_of(HOSPITALS[0], metrics_length=4, check=CHECK, noise=NOISE)
    with pytest.raises(TrefoilError, match="adds other noise"):
        await rig.deal(contribution(0), contribution_ref(1), HOSPITALS[0], terms=terms)


# ------------------------------------------------------------ releases: everybody sends the same vector

SAME = types_pb2.ContributionCheck(same=True)
THIRD = types_pb2.Fraction(numerator=1, denominator=3)
MODEL = np.random.default_rng(5).integers(-(2**27), 2**27, LENGTH)


def release(change: int = 0, *, place: int = 3) -> np.ndarray:
    vector = MODEL.copy()
    vector[place] += change
    return vector.astype(np.uint32)


async def release_round(rig: PartyRig, vectors: Sequence[np.ndarray], **fields: Any) -> list[Any]:
    """The answers of a round in which the hospitals send `vectors`."""
    participants = [party_pb2.Participant(hospital_identity=h.uri, weight=THIRD) for h in HOSPITALS]
    request = open_request(
        1, length=LENGTH, base_model_id="", check=SAME, metrics_length=0, participants=participants, **fields
    )
    await rig.tell_all("OpenRound", request)
    for identity, vector in zip(HOSPITALS, vectors, strict=True):
        terms = terms_of(identity, check=SAME, metrics_length=0, weight=THIRD)
        await rig.deal(vector, contribution_ref(1), identity, terms=terms)
    return list(await rig.close_round(1))


LIES = {
    "one in a coordinate": release(2**8),
    "2^31": release(2**31),
    "multiples of 2^23, which enlarged are nothing": release(2**23),
    "another model": np.random.default_rng(6).integers(0, 2**32, LENGTH, dtype=np.uint32),
    "zeros": np.zeros(LENGTH, np.uint32),
    "twice the model": (2 * MODEL).astype(np.uint32),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_release_that_differs_from_most_is_left_out_and_named(rig: PartyRig, lie: str) -> None:
    answers = await release_round(rig, [release(), LIES[lie], release(1)])
    assert {answer.outcome for answer in answers} == {AGGREGATED}
    assert refused_by(answers) == ["beta"]
    result = (await rig.fetch(model_ref(f"{STUDY}/round-1"), HOSPITALS[0])).view(np.int32)
    np.testing.assert_allclose(result, MODEL * 3.0, atol=8)


async def test_releases_that_are_rounded_apart_are_the_same(rig: PartyRig) -> None:
    answers = await release_round(rig, [release(), release(1, place=0), release(-2, place=9)])
    assert refused_by(answers) == []
    assert {len(answer.survivor_identities) for answer in answers} == {3}


async def test_without_a_majority_nothing_is_released_and_nobody_is_blamed(rig: PartyRig) -> None:
    answers = await release_round(rig, [release(), release(2**20), release(-(2**20))])
    assert {answer.outcome for answer in answers} == {BELOW_QUORUM}
    assert refused_by(answers) == []


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"metrics_length": 4}, "without metrics"),
        ({"quorum": 1}, "quorum of two"),
        ({"check": types_pb2.ContributionCheck(same=True, max_norm=5)}, "and norms"),
        ({"participants": None}, "equally weighed"),
    ],
)
async def test_rounds_that_cannot_be_compared_are_not_opened(
    rig: PartyRig, fields: dict[str, Any], rule: str
) -> None:
    participants = [party_pb2.Participant(hospital_identity=h.uri, weight=THIRD) for h in HOSPITALS]
    asked = {"base_model_id": "", "check": SAME, "metrics_length": 0, "participants": participants, **fields}
    if asked["participants"] is None:
        del asked["participants"]
    with pytest.raises(InvalidInput, match=rule):
        await rig.tell_all("OpenRound", open_request(1, length=LENGTH, **asked))


async def test_a_release_in_the_wider_ring_is_not_opened_where_it_would_have_to_be_compared(
    rig: PartyRig,
) -> None:
    participants = [party_pb2.Participant(hospital_identity=h.uri, weight=THIRD) for h in HOSPITALS]
    asked = {"ring": types_pb2.RING_64, "check": SAME, "metrics_length": 0, "participants": participants}
    with pytest.raises(InvalidInput, match="by a plan without"):
        await rig.tell_all("OpenRound", open_request(1, length=LENGTH, base_model_id="", **asked))
