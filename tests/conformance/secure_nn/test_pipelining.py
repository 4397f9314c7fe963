"""Products in slices: the same answer from the same masks, the same bytes, and one round for all slices."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from libs.core.errors import PeerViolation
from libs.mpc.lockstep import Sent
from libs.mpc.program import Message
from libs.secure_nn import pipelining
from libs.secure_nn.pipelining import MAX_SLICES, cuts_of
from libs.secure_nn.plan import Plan
from tests.conformance.secure_nn.test_prediction import Federation, Residual, compiled

SHAPE = (1, 16, 16)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelining, "SLICE_BYTES", 64)


def federation(turn: int = 0) -> tuple[Federation, torch.Tensor]:
    torch.manual_seed(1)
    parties, _ = compiled(Residual(), SHAPE, turn=turn)
    return parties, torch.rand(5, *SHAPE) * 2 - 1


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("turn", [0, 1])
def test_slices_give_the_same_shares_as_a_whole_product(
    monkeypatch: pytest.MonkeyPatch, batch: int, turn: int
) -> None:
    parties, images = federation(turn)
    materials, _ = parties.prepare("one", batch)
    again = copy.deepcopy(materials)  # the same masks twice: only a test may do that
    inputs = parties.masked(materials, images[:batch].numpy())
    whole, transcript = parties.evaluate(materials, inputs)
    monkeypatch.setattr(pipelining, "SLICE_BYTES", 64)
    sliced, in_slices = parties.evaluate(again, inputs)
    for party in whole:
        np.testing.assert_array_equal(sliced[party], whole[party])
    assert len(in_slices.messages) > len(transcript.messages)
    assert in_slices.rounds == transcript.rounds
    first, second = parties.roles.first, parties.roles.second
    assert in_slices.bytes_sent(first, second) == transcript.bytes_sent(first, second)


def cut_layers(plan: Plan, batch: int) -> dict[str, int]:
    """How many slices each layer with weights is cut into."""
    counts = {step.name: len(cuts_of(plan, i, batch=batch)) for i, step in enumerate(plan.steps)}
    return {name: count for name, count in counts.items() if count > 1}


def test_batches_are_cut_between_images_and_single_images_between_channels(small_slices: None) -> None:
    parties, _ = federation()
    plan = parties.plan
    positions = [i for i in range(len(plan.steps)) if len(cuts_of(plan, i, batch=1)) > 1]
    assert positions
    for position in positions:
        shape = plan.values[position].shape
        assert all(cut[0] == slice(None) for cut in cuts_of(plan, position, batch=1))
        covered = [cut[1] for cut in cuts_of(plan, position, batch=1)]
        assert covered[0].start == 0
        assert covered[-1].stop == shape[0]
        assert all(a.stop == b.start for a, b in itertools.pairwise(covered))
        assert len(covered) <= MAX_SLICES
        assert all(len(cut) == 1 for cut in cuts_of(plan, position, batch=5))


def test_what_is_read_by_more_than_its_opening_is_not_cut(small_slices: None) -> None:
    """A residual sum reads the product itself; channels of groups do not stand alone."""
    parties, _ = federation()
    names = cut_layers(parties.plan, batch=1)
    assert not any(name.startswith("grouped") for name in names)


def test_small_layers_travel_whole() -> None:
    parties, _ = federation()
    assert cut_layers(parties.plan, batch=1) == {}


def test_a_slice_that_is_too_short_is_refused(small_slices: None) -> None:
    parties, images = federation()
    materials, _ = parties.prepare("one", 1)

    def shorten(sent: Sent) -> Message:
        if sent.label.endswith("/1"):
            return {name: array[:, :-1] for name, array in sent.message.items()}
        return sent.message

    options: dict[str, Any] = {"tamper": shorten}
    with pytest.raises(PeerViolation):
        parties.evaluate(materials, parties.masked(materials, images[:1].numpy()), **options)
