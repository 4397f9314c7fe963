"""What the bench measures gives what float torch gives."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.cli.bench.machine import memory_bytes
from libs.cli.bench.measuring import PLAINTEXT_THREADS, time_plaintext
from libs.cli.bench.network import network_workload, usual_size
from libs.cli.bench.operations import matmul_workload, relu_workload, rounds_workload
from libs.cli.bench.workload import Workload
from libs.core.errors import InvalidInput
from libs.models.registry import ARCHITECTURES
from libs.mpc.fixed_point import FixedPoint
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn import steps as s
from libs.secure_nn.cleartext import run_plan_ring
from libs.secure_nn.plan import Plan

rings = st.sampled_from(Ring)


def _error(workload: Workload) -> float:
    """Of the plan run in the clear ring, against the workload's own expectation."""
    plan = workload.plan
    encoded = FixedPoint(plan.ring, plan.input_scale).encode(workload.inputs)
    result = FixedPoint(plan.ring, plan.output_scale).decode(
        run_plan_ring(plan, workload.parameters, encoded)
    )
    assert result.shape == workload.expected.shape
    return float(np.abs(result - workload.expected).max())


@settings(deadline=None, max_examples=20)
@given(elements=st.integers(1, 3000) | st.sampled_from([8192, 8193, 16411, 20_000]), ring=rings)
def test_the_relu_takes_any_number_of_values(elements: int, ring: Ring) -> None:
    workload = relu_workload(elements, ring=ring)
    assert workload.expected.shape == (1, elements + 1)
    assert _error(workload) < 2**-11


def test_the_relu_includes_opening_its_input() -> None:
    workload = relu_workload(2**10, ring=Ring.RING_32)
    opening = 2**10 * 4
    assert workload.declared(Comparison.NARROW).online_bytes_each_way > opening
    kinds = [step.kind for step in workload.plan.steps]
    assert kinds.index("to_shared") < kinds.index("open") < kinds.index("relu")


@settings(deadline=None, max_examples=20)
@given(m=st.integers(1, 8), n=st.integers(1, 8), k=st.integers(1, 600), ring=rings)
def test_the_product_is_truncated_to_the_scale_of_its_input(m: int, n: int, k: int, ring: Ring) -> None:
    workload = matmul_workload(m, n, k, ring=ring)
    assert workload.expected.shape == (m, n)
    assert workload.plan.output_scale == workload.plan.input_scale
    assert _error(workload) < 2**-7
    assert any(isinstance(step, s.Rescale) for step in workload.plan.steps)


def test_a_chain_of_openings_has_a_round_for_each() -> None:
    workload = rounds_workload(10)
    assert workload.declared(Comparison.NARROW).rounds == 11  # and one for the hash of the input
    assert _error(workload) < 2**-10


@pytest.mark.parametrize(
    "workload",
    [relu_workload(100, ring=Ring.RING_32), matmul_workload(2, 3, 4, ring=Ring.RING_64), rounds_workload(3)],
    ids=lambda workload: workload.name,
)
def test_plans_built_by_hand_survive_the_wire(workload: Workload) -> None:
    assert Plan.from_json(workload.plan.to_json()) == workload.plan
    assert len(workload.parameters) == workload.plan.parameter_length
    workload.plaintext()


def test_a_network_is_measured_against_itself() -> None:
    workload = network_workload("small_cnn", size=16, channels=1, batch=3)
    assert workload.inputs.shape == (3, 1, 16, 16)
    assert _error(workload) < 0.02 * float(np.abs(workload.expected).max()) + 2**-6
    again = workload.plaintext()
    assert np.allclose(again.numpy(), workload.expected, atol=1e-6)


def test_an_unknown_network_is_answered_with_the_registrys_list() -> None:
    with pytest.raises(InvalidInput) as told:
        network_workload("nonsense", size=28, channels=1, batch=1)
    for name in ARCHITECTURES:
        assert name in str(told.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_usual_size_is_one_that_the_network_takes(name: str) -> None:
    assert usual_size(name) >= ARCHITECTURES[name].min_size


def test_plaintext_is_timed_on_two_threads_which_are_given_back() -> None:
    before, seen = torch.get_num_threads(), set()
    times = time_plaintext(lambda: seen.add(torch.get_num_threads()))
    assert seen == {PLAINTEXT_THREADS}
    assert torch.get_num_threads() == before
    assert len(times) >= 5


def test_memory_of_a_process_that_is_gone_is_not_known() -> None:
    assert memory_bytes(2**22 + 1, "VmHWM") is None
    assert memory_bytes(os.getpid(), "VmRSS") > 1 << 20
