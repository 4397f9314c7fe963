"""What cannot be written down, and which step may follow which."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.mpc.ring import Ring
from libs.rpc.identity import COORDINATOR, Identity, Kind
from services.smpc_party.domain import (
    PREDICTION_TABLE,
    ROUND_TABLE,
    ModelSpec,
    Participant,
    PredictionEvent,
    PredictionState,
    RoundEvent,
    RoundKey,
    RoundSpec,
    RoundState,
    move,
)
from services.smpc_party.model_use import ModelUse

ALPHA, BETA = (Identity(Kind.HOSPITAL, name) for name in ("alpha", "beta"))
HALF = Fraction(1, 2)
ROUND = RoundSpec(
    key=RoundKey("study", 3),
    ring=Ring.RING_32,
    update_length=10,
    metrics_length=2,
    participants=(Participant(ALPHA, HALF), Participant(BETA, HALF)),
    quorum=1,
    base_model_id="study/v0",
    result_model_id="study/round-3",
    readers=frozenset({ALPHA, BETA}),
    metrics_readers=frozenset(),
    plan=b'{"x":1}',
    use=ModelUse(anyone=True, max_predictions=5),
)
MODEL = ModelSpec(
    "study/v0",
    Ring.RING_64,
    5,
    ALPHA,
    frozenset({BETA}),
    b"",
    ModelUse(askers=frozenset({BETA})),
    frozenset({ALPHA}),
)


def test_specs_survive_their_json_and_equal_ones_are_equal_text() -> None:
    assert RoundSpec.from_json(ROUND.to_json()) == ROUND
    assert ModelSpec.from_json(MODEL.to_json()) == MODEL
    assert ModelSpec.from_json(ROUND.result((ALPHA,)).to_json()) == ROUND.result((ALPHA,))
    turned = replace(ROUND, readers=frozenset({BETA, ALPHA}))
    assert turned.to_json() == ROUND.to_json()


@pytest.mark.parametrize(
    "fields",
    [
        {"update_length": 0},
        {"update_length": 1 << 40},
        {"metrics_length": -1},
        {"participants": ()},
        {"participants": (Participant(ALPHA, Fraction(1)), Participant(ALPHA, Fraction(0)))},
        {"participants": (Participant(ALPHA, HALF), Participant(ALPHA, HALF))},
        {"participants": (Participant(ALPHA, HALF),)},
        {"participants": (Participant(ALPHA, Fraction(3, 2)), Participant(BETA, -HALF))},
        {"participants": (Participant(ALPHA, HALF), Participant(COORDINATOR, HALF))},
        {"quorum": 0},
        {"quorum": 3},
        {"result_model_id": ""},
        {"result_model_id": "../etc"},
        {"result_model_id": "study/v0"},
        {"base_model_id": "a//b"},
    ],
)
def test_a_round_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        replace(ROUND, **fields)


@pytest.mark.parametrize("model_id", ["", "/a", "a/", "a/../b", "a b", "a" * 201, "ä", ".hidden"])
def test_a_name_that_could_be_a_path_is_refused(model_id: str) -> None:
    with pytest.raises(InvalidInput):
        replace(MODEL, model_id=model_id)


@pytest.mark.parametrize(("study", "number"), [("", 1), ("a/b", 1), ("a", -1), ("a", 1 << 31)])
def test_a_round_without_a_proper_name_is_refused(study: str, number: int) -> None:
    with pytest.raises(InvalidInput):
        RoundKey(study, number)


def test_a_step_that_the_table_lacks_is_refused_in_plain_words() -> None:
    with pytest.raises(FailedPrecondition, match="is closed and cannot take a contribution now"):
        move(ROUND_TABLE, RoundState.CLOSED, RoundEvent.CONTRIBUTE, what="The round")


def test_contributions_are_taken_only_while_a_round_is_open() -> None:
    takers = [s for s in RoundState if (s, RoundEvent.CONTRIBUTE) in ROUND_TABLE]
    assert takers == [RoundState.OPEN]


def test_nothing_leaves_a_closed_round() -> None:
    after = {ROUND_TABLE.get((RoundState.CLOSED, event)) for event in RoundEvent}
    assert after == {None, RoundState.CLOSED}


def test_a_prediction_that_ended_never_moves_again() -> None:
    for state, event in itertools.product(
        (PredictionState.FINISHED, PredictionState.BURNED), PredictionEvent
    ):
        assert (state, event) not in PREDICTION_TABLE


def test_every_unfinished_prediction_can_be_burned() -> None:
    for state in (PredictionState.PREPARING, PredictionState.READY, PredictionState.EVALUATING):
        assert PREDICTION_TABLE[state, PredictionEvent.BURN] is PredictionState.BURNED
