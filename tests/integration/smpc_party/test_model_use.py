"""Who may ask a released model: the hospitals' word at the parties, and a coordinator that says otherwise."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from libs.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TrefoilError,
)
from libs.core.ids import PARTIES, new_id
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import translated
from services.smpc_party.model_use import BY_PLAN, Counter
from tests.fakes.party_rig import (
    CLINIC,
    HOSPITALS,
    OTHER_CLINIC,
    RELEASED,
    SCIENTIST,
    PartyRig,
    SmallModel,
    contribution_ref,
    metrics_ref,
    model_ref,
    open_request,
    round_ref,
)
from tests.fakes.prediction_talk import P0, P1, P2, chunk, end, first_answer, talking

ALPHA, BETA, GAMMA = HOSPITALS


@pytest.fixture
async def released(rig: PartyRig, small_model: SmallModel) -> PartyRig:
    """Three parties that hold a model of three hospitals, for the clinic to ask."""
    await rig.release(small_model)
    return rig


def rule(asker: Any = CLINIC, *, allowed: bool = True, **fields: Any) -> party_pb2.ModelUseRule:
    uri = asker if isinstance(asker, str) else asker.uri
    return party_pb2.ModelUseRule(asker_identity=uri, allowed=allowed, **fields)


async def ask(rig: PartyRig, model: SmallModel, *, batch: int = 1, client: Any = CLINIC) -> None:
    """One prediction, which must be right."""
    assignment = await rig.open_prediction(RELEASED, batch=batch, client_identity=client.uri)
    result = await (await rig.client(client)).predict(assignment, model.plan, model.pixels(batch))
    np.testing.assert_allclose(result.logits, model.logits(batch), atol=0.02)


async def opened(rig: PartyRig, party: Any = P0, *, batch: int = 1, client: Any = CLINIC) -> bool:
    """Whether one party takes this prediction."""
    request = party_pb2.OpenPredictionRequest(
        computation_id=new_id("predict"),
        model_id=RELEASED,
        batch=batch,
        dealer=0,
        first_evaluator=1,
        second_evaluator=2,
        client_identity=client.uri,
        deadline_s=5.0,
    )
    try:
        await rig.tell(party, "OpenPrediction", request)
    except PermissionDenied:
        return False
    return True


def counted(rig: PartyRig, counter: Counter, party: Any = P0) -> int:
    """What is on the disk."""
    _, counts = rig.parties[party]._model_uses._store.load(RELEASED)
    return counts.get(counter, 0)


# ---------------------------------------------------------------- a coordinator that lies


async def test_a_prediction_for_a_client_whom_nobody_allowed_is_refused_by_every_party(
    released: PartyRig, small_model: SmallModel
) -> None:
    await ask(released, small_model)
    for party in PARTIES:
        assert not await opened(released, party, client=OTHER_CLINIC)
    with pytest.raises(PermissionDenied, match=r"alpha, beta, gamma did not give it.*trefoil request create"):
        await released.open_prediction(RELEASED, client_identity=OTHER_CLINIC.uri)


WIDER: dict[str, dict[str, Any]] = {
    "anyone": {"anyone": True},
    "another client": {"asker_identities": [CLINIC.uri, OTHER_CLINIC.uri]},
    "more predictions": {"asker_identities": [CLINIC.uri], "max_predictions": 11},
    "any number": {"asker_identities": [CLINIC.uri]},
}


@pytest.mark.parametrize("name", WIDER)
async def test_a_round_whose_result_more_may_ask_takes_no_contribution(
    rig: PartyRig, small_model: SmallModel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved = types_pb2.ModelUse(asker_identities=[CLINIC.uri], max_predictions=10)
    monkeypatch.setattr("tests.fakes.party_rig.FOR_THE_CLINIC", approved)
    with pytest.raises(FailedPrecondition, match="lets others ask the result"):
        await rig.release(small_model, use=types_pb2.ModelUse(**WIDER[name]))
    for party in PARTIES:
        with pytest.raises(NotFound):
            rig.parties[party]._index.model(RELEASED)


async def test_a_narrower_round_is_taken(rig: PartyRig, small_model: SmallModel) -> None:
    await rig.release(small_model, use=types_pb2.ModelUse())
    assert not await opened(rig)


async def test_a_model_is_not_registered_again_for_others(
    released: PartyRig, small_model: SmallModel
) -> None:
    request = party_pb2.RegisterModelRequest(
        model_id=RELEASED,
        ring=types_pb2.RING_32,
        length=len(small_model.parameters),
        dealer_identity=SCIENTIST.uri,
        plan=small_model.plan.to_json(),
        use=types_pb2.ModelUse(anyone=True),
    )
    with pytest.raises(TrefoilError):
        await released.tell_all("RegisterModel", request)
    assert not await opened(released, client=OTHER_CLINIC)


async def test_a_client_that_only_one_party_is_told_of_gets_nothing(
    released: PartyRig, small_model: SmallModel
) -> None:
    """Party 0 is told of a client who may ask, the evaluators of another: each looks for itself."""
    computation_id = new_id("predict")
    roles = {"dealer": 0, "first_evaluator": 1, "second_evaluator": 2}
    request = party_pb2.OpenPredictionRequest(
        computation_id=computation_id, model_id=RELEASED, batch=1, deadline_s=5.0, **roles
    )
    for party, client in {P0: CLINIC, P1: OTHER_CLINIC, P2: OTHER_CLINIC}.items():
        request.client_identity = client.uri
        if party == P0:
            await released.tell(party, "OpenPrediction", request)
            continue
        with pytest.raises(PermissionDenied):
            await released.tell(party, "OpenPrediction", request)
    assignment = released.assignment(computation_id, deadline_s=5.0, **roles)
    with pytest.raises(NotFound):
        await first_answer(released, assignment, P1)


# ---------------------------------------------------------------- every hospital's word


async def test_a_hospital_may_deny_an_asker_whom_the_plan_allows(released: PartyRig) -> None:
    await released.set_use(BETA, rule(allowed=False))
    with pytest.raises(PermissionDenied, match=r"and beta did not"):
        await released.open_prediction(RELEASED)


async def test_an_asker_beyond_the_plan_needs_every_hospital(
    released: PartyRig, small_model: SmallModel
) -> None:
    for hospital in (ALPHA, BETA):
        await released.set_use(hospital, rule(OTHER_CLINIC))
        assert not await opened(released, client=OTHER_CLINIC)
    await released.set_use(GAMMA, rule(OTHER_CLINIC))
    await ask(released, small_model, client=OTHER_CLINIC)


async def test_a_rule_for_everybody_gives_way_to_ones_own(released: PartyRig) -> None:
    await released.set_use(ALPHA, rule("*", allowed=False), rule(CLINIC))
    assert await opened(released)
    await released.set_use(ALPHA, rule("*", allowed=False), revision=2)
    assert not await opened(released)


async def test_a_hospital_without_a_contribution_has_no_word(rig: PartyRig, small_model: SmallModel) -> None:
    """Gamma took part in the round and dropped out: nothing of it is in the model."""
    await rig.release(small_model, hospitals=(0, 1))
    with pytest.raises(PermissionDenied, match="No contribution"):
        await rig.set_use(GAMMA, rule(allowed=False))
    request = party_pb2.DescribeModelUseRequest(model_id=RELEASED)
    with pytest.raises(PermissionDenied, match="No contribution"), translated():
        await (await rig.stub(P0, GAMMA)).DescribeModelUse(request)
    assert await opened(rig)
    await rig.set_use(BETA, rule(allowed=False))
    assert not await opened(rig)


async def test_an_older_change_that_comes_late_is_ignored(released: PartyRig) -> None:
    assert await released.set_use(ALPHA, rule(allowed=False), revision=7) == [7, 7, 7]
    assert await released.set_use(ALPHA, rule(), revision=6) == [7, 7, 7]
    assert await released.set_use(ALPHA, rule(), revision=7) == [7, 7, 7]
    assert not await opened(released)


async def test_rules_survive_a_restart(released: PartyRig) -> None:
    await released.set_use(ALPHA, rule(allowed=False))
    await released.stop(P0)
    await released.start(P0)
    assert not await opened(released)


async def test_an_expired_rule_allows_nothing(released: PartyRig) -> None:
    past = int(time.time()) - 1
    await released.set_use(ALPHA, rule(expires_at_s=past))
    assert not await opened(released)
    await released.set_use(ALPHA, rule(expires_at_s=past + 3600), revision=2)
    assert await opened(released)


BAD_RULES: dict[str, dict[str, Any]] = {
    "twice the same asker": {"rules": [rule(), rule(allowed=False)]},
    "no revision": {"rules": [rule()], "revision": 0},
    "an asker that is none": {"rules": [rule("clinic")]},
    "too many": {"rules": [rule(f"spiffe://trefoil.local/client/c{i}") for i in range(1025)]},
    "a long approval": {"rules": [rule(approval_id="x" * 129)]},
    "a number beyond bounds": {"rules": [rule(max_predictions=1 << 63)]},
}


@pytest.mark.parametrize("name", BAD_RULES)
async def test_rules_that_make_no_sense_are_refused(released: PartyRig, name: str) -> None:
    fields = {"revision": 1, **BAD_RULES[name]}
    request = party_pb2.SetModelUseRequest(model_id=RELEASED, **fields)
    with pytest.raises(InvalidInput), translated():
        await (await released.stub(P0, ALPHA)).SetModelUse(request)


# ---------------------------------------------------------------- numbers


async def test_of_a_hundred_predictions_that_want_the_last_one_each_party_takes_one(
    released: PartyRig,
) -> None:
    await released.set_use(ALPHA, rule(max_predictions=1, approval_id="a-1"))
    for party in PARTIES:
        taken = await asyncio.gather(*(opened(released, party) for _ in range(100)))
        assert sum(taken) == 1
        assert counted(released, Counter(ALPHA.uri, CLINIC.uri, "a-1"), party) == 1


async def test_the_same_assignment_again_counts_once(released: PartyRig) -> None:
    await released.set_use(ALPHA, rule(max_predictions=1))
    request = party_pb2.OpenPredictionRequest(
        computation_id=new_id("predict"),
        model_id=RELEASED,
        batch=1,
        dealer=0,
        first_evaluator=1,
        second_evaluator=2,
        client_identity=CLINIC.uri,
        deadline_s=5.0,
    )
    await asyncio.gather(*(released.tell(P0, "OpenPrediction", request) for _ in range(5)))
    assert counted(released, Counter(ALPHA.uri, CLINIC.uri)) == 1


async def test_images_are_counted_and_a_batch_that_exceeds_the_rest_takes_none_of_it(
    released: PartyRig, small_model: SmallModel
) -> None:
    await released.set_use(ALPHA, rule(max_predictions=5))
    await ask(released, small_model, batch=3)
    with pytest.raises(PermissionDenied, match=r"5 predictions .* used up, or"):
        await released.open_prediction(RELEASED, batch=3)
    await ask(released, small_model, batch=2)
    assert not await opened(released)


async def test_a_limit_counts_on_after_a_restart_and_a_prediction_that_failed_is_used(
    released: PartyRig,
) -> None:
    await released.set_use(ALPHA, rule(max_predictions=1))
    assert await opened(released)
    await released.stop(P0)  # it burns the prediction
    await released.start(P0)
    assert not await opened(released)


async def test_what_is_under_a_limit_is_on_the_disk_before_the_prediction_begins(
    released: PartyRig,
) -> None:
    party = released.parties[P0]
    await released.set_use(ALPHA, rule(max_predictions=9))
    begun: list[int] = []
    run = party._predictions._run

    async def watched(*arguments: Any) -> None:
        begun.append(counted(released, Counter(ALPHA.uri, CLINIC.uri)))
        await run(*arguments)

    party._predictions._run = watched  # type: ignore[method-assign]
    assert await opened(released)
    await asyncio.sleep(0)
    assert begun == [1]


async def test_another_approval_counts_anew_and_the_same_one_goes_on(released: PartyRig) -> None:
    await released.set_use(ALPHA, rule(max_predictions=1, approval_id="a-1"))
    assert await opened(released)
    await released.set_use(ALPHA, rule(max_predictions=2, approval_id="a-1"), revision=2)
    assert await opened(released)
    assert not await opened(released)
    await released.set_use(ALPHA, rule(max_predictions=1, approval_id="a-2"), revision=3)
    assert await opened(released)
    assert not await opened(released)


async def test_a_limit_that_comes_later_counts_what_the_rule_had_allowed(released: PartyRig) -> None:
    await released.set_use(ALPHA, rule(approval_id="a-1"))
    assert await opened(released)
    await released.set_use(ALPHA, rule(max_predictions=1, approval_id="a-1"), revision=2)
    assert not await opened(released)


async def test_a_limit_for_everybody_is_one_for_all_of_them_together(
    rig: PartyRig, small_model: SmallModel
) -> None:
    await rig.release(small_model)
    for hospital in HOSPITALS:
        await rig.set_use(hospital, rule("*", max_predictions=2))
    assert await opened(rig, client=CLINIC)
    assert await opened(rig, client=OTHER_CLINIC)
    assert not await opened(rig, client=SCIENTIST)


async def test_the_plans_limit_counts_what_any_hospital_leaves_to_the_plan(
    rig: PartyRig, small_model: SmallModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = types_pb2.ModelUse(asker_identities=[CLINIC.uri], max_predictions=1)
    monkeypatch.setattr("tests.fakes.party_rig.FOR_THE_CLINIC", limited)
    await rig.release(small_model, use=limited)
    await rig.set_use(ALPHA, rule())
    assert await opened(rig)
    assert not await opened(rig)
    assert counted(rig, BY_PLAN) == 1
    for hospital in (BETA, GAMMA):
        await rig.set_use(hospital, rule())
    assert await opened(rig)


async def test_hospitals_learn_who_asked_and_what_is_not_limited_is_written_when_the_party_stops(
    released: PartyRig, small_model: SmallModel
) -> None:
    await ask(released, small_model, batch=3)
    await ask(released, small_model, batch=2)
    await released.stop(P0)
    await released.start(P0)
    request = party_pb2.DescribeModelUseRequest(model_id=RELEASED)
    for party in PARTIES:
        answer = await (await released.stub(party, BETA)).DescribeModelUse(request)
        assert [(c.asker_identity, c.predictions) for c in answer.counts] == [(CLINIC.uri, 5)]


# ---------------------------------------------------------------- revocation


async def test_a_revocation_burns_what_is_not_evaluated_yet(
    released: PartyRig, small_model: SmallModel
) -> None:
    assignment = await released.open_prediction(RELEASED)
    async with (
        talking(released, assignment, P1) as (_, first),
        talking(released, assignment, P2) as (_, second),
    ):
        with translated():
            await asyncio.gather(anext(first), anext(second))
        await released.set_use(GAMMA, rule(allowed=False))
        with pytest.raises(PermissionDenied, match="gamma did not"), translated():
            await anext(first)
        with pytest.raises(TrefoilError) as ended, translated():  # its own refusal, or that of its peer
            await anext(second)
        assert not isinstance(ended.value, DeadlineExceeded)
    for party in (P1, P2):
        assert not released.parties[party]._predictions._open


async def test_a_revocation_leaves_other_askers_alone(released: PartyRig, small_model: SmallModel) -> None:
    assignment = await released.open_prediction(RELEASED)
    await released.set_use(GAMMA, rule(OTHER_CLINIC, allowed=False))
    result = await (await released.client()).predict(assignment, small_model.plan, small_model.pixels(1))
    np.testing.assert_allclose(result.logits, small_model.logits(1), atol=0.02)


async def test_a_consent_that_expires_before_the_input_comes_is_none(
    released: PartyRig, small_model: SmallModel
) -> None:
    """Nobody says anything at that moment: the evaluators look once more before they evaluate."""
    await released.set_use(GAMMA, rule(expires_at_s=int(time.time()) + 2))
    assignment = await released.open_prediction(RELEASED)
    async with talking(released, assignment, P1) as (said, answers):
        with translated():
            await anext(answers)
        await asyncio.sleep(2.1)
        data = np.zeros(64, small_model.plan.ring.dtype).tobytes()
        said.put_nowait(chunk(data))
        said.put_nowait(end(data))
        with pytest.raises(PermissionDenied, match="gamma"), translated():
            await anext(answers)


# ---------------------------------------------------------------- downloading


async def test_a_study_without_download_gives_its_versions_to_its_hospitals_and_metrics_to_the_scientist(
    rig: PartyRig,
) -> None:
    """The readers of a round are the terms' at most, and its metrics have readers of their own."""
    await rig.deal_model(np.zeros(10, np.uint32), model_id="study-1/v0")
    request = open_request(1, length=10)
    request.reader_identities.append(SCIENTIST.uri)
    await rig.tell_all("OpenRound", request)
    with pytest.raises(FailedPrecondition, match="has other readers than"):
        await rig.deal(np.zeros(14, np.uint32), contribution_ref(1), ALPHA)
    await rig.tell_all("AbandonRound", party_pb2.AbandonRoundRequest(round=round_ref(1)))
    await rig.tell_all("OpenRound", open_request(1, length=10))
    for hospital in HOSPITALS:
        await rig.deal(np.zeros(14, np.uint32), contribution_ref(1), hospital)
    await rig.close_round(1)
    assert len(await rig.fetch(metrics_ref(1), SCIENTIST)) == 4
    assert len(await rig.fetch(model_ref("study-1/round-1"), BETA)) == 10
    with pytest.raises(PermissionDenied):
        await rig.fetch(model_ref("study-1/round-1"), SCIENTIST)
