from __future__ import annotations

import numpy as np
import pytest

from libs.core.errors import PeerViolation
from libs.core.ids import PartyId
from libs.mpc.lockstep import Sent, run_lockstep
from libs.mpc.program import ArraySpec, Message, Program, Round, swap


def exchange(peer: int) -> Program[np.ndarray]:
    return (yield from swap("step", PartyId(peer), "x", np.arange(3, dtype=np.uint32)))


def pair() -> dict[PartyId, Program[np.ndarray]]:
    return {PartyId(0): exchange(1), PartyId(1): exchange(0)}


def test_two_programs_swap_arrays_in_one_round() -> None:
    results, transcript = run_lockstep(pair())
    assert results[PartyId(0)].tolist() == [0, 1, 2]
    assert transcript.rounds == {0: 1, 1: 1}
    assert transcript.bytes_sent(PartyId(0), PartyId(1)) == 12


LIES = {
    "name": lambda m: {"y": m["x"]},
    "extra": lambda m: {**m, "y": m["x"]},
    "shape": lambda m: {"x": m["x"].reshape(3, 1)},
    "length": lambda m: {"x": m["x"][:2]},
    "dtype": lambda m: {"x": m["x"].astype(np.uint64)},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_message_of_another_form_is_a_violation(lie: str) -> None:
    def tamper(sent: Sent) -> Message:
        return LIES[lie](sent.message) if sent.sender == 1 else sent.message

    with pytest.raises(PeerViolation, match="party 1"):
        run_lockstep(pair(), tamper=tamper)


def test_a_message_of_another_step_is_a_violation() -> None:
    def other() -> Program[np.ndarray]:
        return (yield from swap("later step", PartyId(0), "x", np.arange(3, dtype=np.uint32)))

    with pytest.raises(PeerViolation):
        run_lockstep({PartyId(0): exchange(1), PartyId(1): other()})


def test_a_message_that_nobody_awaits_is_a_violation() -> None:
    def talk() -> Program[None]:
        yield Round("step", {PartyId(1): {"x": np.zeros(1, np.uint32)}})

    def listen() -> Program[None]:
        yield from ()

    with pytest.raises(PeerViolation, match="not awaited"):
        run_lockstep({PartyId(0): talk(), PartyId(1): listen()})


def test_waiting_for_nobody_is_a_violation_not_a_hang() -> None:
    def wait(peer: int) -> Program[None]:
        yield Round("step", awaits={PartyId(peer): {"x": ArraySpec(np.dtype(np.uint32), (1,))}})

    with pytest.raises(PeerViolation, match="nobody sent"):
        run_lockstep({PartyId(0): wait(1), PartyId(1): wait(0)})
