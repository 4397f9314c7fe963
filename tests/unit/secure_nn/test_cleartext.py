"""The oracle itself, against Python's unbounded integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.cleartext import run_plan_float, run_plan_ring
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters, float_parameters
from libs.secure_nn.plan import Plan
from libs.secure_nn.steps import Input, Lift, Open, Relu, Rescale, Step, ToShared
from libs.secure_nn.values import Form, ValueSpec


def chain(ring: Ring, *, multiplier: int, shift: int, kind: type[Rescale] | type[Relu]) -> Plan:
    """image -> rescale or ReLU, for one row of numbers."""
    window = {"window_low": ring.bits - 17, "window_bits": 16} if kind is Relu else {}
    steps: tuple[Step, ...] = (
        Input(name="x", inputs=(), output=0, shape=(1, 1, 8), scale=Fraction(1)),
        kind(name="y", inputs=(0,), output=1, multiplier=multiplier, shift=shift, **window),
    )
    ratio = Fraction(multiplier, 2**shift)
    room = min(64, ring.bits - 2 - math.ceil(math.log2(ratio)))
    values = (
        ValueSpec((1, 1, 8), Fraction(1), Form.MASKED, ring.bits - 2),
        ValueSpec((1, 1, 8), ratio, Form.SHARED, room),
    )
    return Plan(ring=ring, steps=steps, values=values, parameters=())


@pytest.mark.parametrize("kind", [Rescale, Relu])
@pytest.mark.parametrize("ring", list(Ring))
@pytest.mark.parametrize(("multiplier", "shift"), [(1, 0), (1, 13), (3, 5), (2**32 - 1, 32), (1, 32), (9, 0)])
def test_rescaling_rounds_down_exactly(ring: Ring, kind: type, multiplier: int, shift: int) -> None:
    top = 2 ** (ring.bits - 2) // max(1, multiplier >> shift)
    numbers = [0, 1, -1, 12_345, -12_345, top - 1, 1 - top, -(top // 3)]
    plan = chain(ring, multiplier=multiplier, shift=shift, kind=kind)
    image = np.array(numbers, dtype=ring.signed_dtype).reshape(1, 1, 1, 8).view(ring.dtype)
    result = run_plan_ring(plan, ring.zeros((0,)), image).view(ring.signed_dtype).reshape(-1)
    kept = [max(n, 0) for n in numbers] if kind is Relu else numbers
    assert result.tolist() == [n * multiplier // 2**shift for n in kept]


def test_random_rounding_is_unbiased_and_never_more_than_one_unit_up() -> None:
    plan = chain(Ring.RING_32, multiplier=3, shift=5, kind=Rescale)
    image = np.tile(np.array([0, 1, 5, 11, -1, -7, 32, 1001], np.int32), (4000, 1)).reshape(-1, 1, 1, 8)
    rounding = np.random.default_rng(0)
    result = run_plan_ring(plan, np.zeros(0, np.uint32), image.view(np.uint32), rounding=rounding)
    exact = image * 3 / 32
    above = result.view(np.int32) - np.floor(exact)
    assert set(np.unique(above)) <= {0, 1}
    assert np.abs(result.view(np.int32).mean(0) - exact.mean(0)).max() < 0.04
    assert (above[..., [0, 6]] == 0).all()  # nothing to round


def test_lifting_and_changing_form_keep_the_real_value() -> None:
    steps: tuple[Step, ...] = (
        Input(name="x", inputs=(), output=0, shape=(1, 1, 2), scale=Fraction(4)),
        ToShared(name="s", inputs=(0,), output=1),
        Lift(name="l", inputs=(1,), output=2, factor=9),
        Open(name="o", inputs=(2,), output=3),
        ToShared(name="t", inputs=(3,), output=4),
    )
    forms = [Form.MASKED, Form.SHARED, Form.SHARED, Form.MASKED, Form.SHARED]
    scales = [4, 4, 36, 36, 36]
    values = tuple(
        ValueSpec((1, 1, 2), Fraction(scale), form, 8) for form, scale in zip(forms, scales, strict=True)
    )
    plan = Plan(ring=Ring.RING_32, steps=steps, values=values, parameters=())
    image = np.array([[[[7, -5]]]], dtype=np.int32).view(np.uint32)
    assert run_plan_ring(plan, np.zeros(0, np.uint32), image).view(np.int32).ravel().tolist() == [63, -45]
    assert run_plan_float(plan, np.zeros(0), image.view(np.int32)).ravel().tolist() == [7.0, -5.0]


def test_a_batch_gives_what_its_images_give_one_by_one() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 2))
    images = torch.rand(5, 1, 8, 8)
    plan = compile_module(module, input_shape=(1, 8, 8), bounds=calibrate(module, images))
    parameters = encode_parameters(module, plan)
    encoded = (images.numpy() * float(plan.input_scale)).astype(np.int32).view(np.uint32)
    together = run_plan_ring(plan, parameters, encoded)
    alone = [run_plan_ring(plan, parameters, encoded[i : i + 1])[0] for i in range(5)]
    assert together.tolist() == [row.tolist() for row in alone]


def test_arrays_of_another_type_or_shape_are_refused() -> None:
    module, images = nn.Conv2d(1, 2, 3), torch.rand(2, 1, 8, 8)
    plan = compile_module(module, input_shape=(1, 8, 8), bounds=calibrate(module, images))
    parameters, encoded = encode_parameters(module, plan), np.zeros((1, 1, 8, 8), np.uint32)
    for wrong in (
        (parameters[1:], encoded),
        (parameters, encoded[:, :, 1:]),
        (parameters, encoded.astype(np.int32)),
        (parameters.astype(np.uint64), encoded),
    ):
        with pytest.raises(InvalidInput):
            run_plan_ring(plan, *wrong)


def test_an_input_beyond_its_bound_gives_wrong_results_silently() -> None:
    """Why bounds have a safety factor: nobody can notice this at run time."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))
    images = torch.rand(16, 1, 8, 8)
    plan = compile_module(module, input_shape=(1, 8, 8), bounds=calibrate(module, images))
    huge = images.numpy() * 10_000
    encoded = np.rint(huge * float(plan.input_scale)).astype(np.int64).astype(np.uint32)
    result = run_plan_ring(plan, encode_parameters(module, plan), encoded).view(np.int32)
    expected = run_plan_float(plan, float_parameters(module, plan), huge)
    assert np.abs(result / float(plan.output_scale) - expected).max() > 1.0
