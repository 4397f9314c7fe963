"""Each rule of steps and plans, broken alone: what a check of something else would not have noticed."""

from __future__ import annotations

from fractions import Fraction

import pytest

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring
from libs.secure_nn import codec
from libs.secure_nn.plan import Plan
from libs.secure_nn.steps import (
    AdaptiveSumPool2d,
    Add,
    AddConstant,
    Concatenate,
    Conv2d,
    Flatten,
    Input,
    Lift,
    Linear,
    Open,
    Pad2d,
    Relu,
    Rescale,
    Reshape,
    Step,
    StridedSlice2d,
    SumPool2d,
    ToShared,
)
from libs.secure_nn.values import Form, ParameterSpec, Shape, ValueSpec

IMAGE = (2, 6, 8)


def spec(shape: Shape = IMAGE, *, scale: int = 4, form: Form = Form.MASKED, bound: int = 1) -> ValueSpec:
    return ValueSpec(shape, Fraction(scale), form, bound)


SHARED = spec(form=Form.SHARED)
FLAT = spec((96,))
PLACE = {"name": "s", "inputs": (0,), "output": 1}


def weights(shape: Shape, bias: Shape | None = None, *, bias_scale: int = 32) -> tuple[ParameterSpec, ...]:
    weight = ParameterSpec("w", shape, Fraction(8), 0)
    return (weight,) if bias is None else (weight, ParameterSpec("b", bias, Fraction(bias_scale), 0))


def conv(**changes: object) -> Conv2d:
    options = {
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
        "groups": 1,
        "weight": 0,
        "bias": None,
    }
    return Conv2d(**PLACE, **{**options, **changes})


def linear(*, weight: int = 0, bias: int | None = None) -> Linear:
    return Linear(**PLACE, weight=weight, bias=bias)


def relu(**changes: int) -> Relu:
    return Relu(**PLACE, **{"multiplier": 1, "shift": 0, "window_low": 0, "window_bits": 16, **changes})


def pad(**changes: int) -> Pad2d:
    return Pad2d(**PLACE, **{"left": 1, "right": 1, "top": 1, "bottom": 1, "value": 0, **changes})


def cut(rows: tuple[int, int, int], columns: tuple[int, int, int] = (0, 8, 1)) -> StridedSlice2d:
    return StridedSlice2d(**PLACE, rows=rows, columns=columns)


def pool(kernel: int, stride: int, padding: int = 0) -> SumPool2d:
    return SumPool2d(**PLACE, kernel=(kernel,) * 2, stride=(stride,) * 2, padding=(padding,) * 2)


W = weights((4, 2, 3, 3))
BROKEN: dict[str, tuple[Step, tuple[ValueSpec, ...], tuple[ParameterSpec, ...], str]] = {
    "conv on shares": (conv(), (SHARED,), W, "needs a masked input"),
    "conv on features": (conv(), (FLAT,), W, "with 3 axes"),
    "conv weight of two axes": (conv(), (spec(),), weights((4, 2)), "weight that is not of shape"),
    "conv weight not there": (conv(weight=1), (spec(),), W, "does not have"),
    "conv stride": (conv(stride=(0, 1)), (spec(),), W, "below 1"),
    "conv dilation": (conv(dilation=(1, 0)), (spec(),), W, "below 1"),
    "conv padding": (conv(padding=(-1, 0)), (spec(),), W, "negative padding"),
    "conv far padding": (conv(padding=(3, 0)), (spec(),), W, "more than its kernel"),
    "conv channels": (conv(), (spec((3, 6, 8)),), W, "channels that do not match"),
    "conv outputs": (conv(groups=2), (spec(),), weights((3, 1, 3, 3)), "channels that do not match"),
    "conv kernel": (conv(), (spec((2, 2, 8)),), W, "larger than its input"),
    "conv bias shape": (conv(bias=1), (spec(),), weights((4, 2, 3, 3), (3,)), "bias of another"),
    "conv bias scale": (
        conv(bias=1),
        (spec(),),
        weights((4, 2, 3, 3), (4,), bias_scale=8),
        "bias of another",
    ),
    "linear on an image": (linear(), (spec(),), weights((2, 96)), "with 1 axes"),
    "linear on shares": (linear(), (spec((96,), form=Form.SHARED),), weights((2, 96)), "masked"),
    "linear features": (linear(), (FLAT,), weights((2, 95)), "does not match its input"),
    "linear bias": (linear(bias=1), (FLAT,), weights((2, 96), (3,)), "bias of another"),
    "linear bias not there": (linear(bias=5), (FLAT,), weights((2, 96)), "does not have"),
    "open of masked": (Open(**PLACE), (spec(),), (), "needs a shared input"),
    "to_shared of shared": (ToShared(**PLACE), (SHARED,), (), "needs a masked input"),
    "rescale of shared": (Rescale(**PLACE, multiplier=1, shift=1), (SHARED,), (), "needs a masked"),
    "rescale shift": (Rescale(**PLACE, multiplier=1, shift=33), (spec(),), (), r"shift outside \[0, 32\]"),
    "relu multiplier": (relu(multiplier=2**32), (spec(),), (), "multiplier outside"),
    "relu window": (relu(window_bits=24), (spec(),), (), "sign window"),
    "relu window below zero": (relu(window_low=-1), (spec(),), (), "sign window"),
    "adding scales": (Add(name="s", inputs=(0, 1), output=2), (spec(), spec(scale=8)), (), "forms or scales"),
    "adding forms": (Add(name="s", inputs=(0, 1), output=2), (spec(), SHARED), (), "forms or scales"),
    "adding shapes": (Add(name="s", inputs=(0, 1), output=2), (spec(), FLAT), (), "joins shapes"),
    "joining scales": (
        Concatenate(name="s", inputs=(0, 1), output=2, axis=0),
        (spec(), spec(scale=8)),
        (),
        "forms or scales",
    ),
    "joining axis": (
        Concatenate(name="s", inputs=(0, 1), output=2, axis=3),
        (spec(),) * 2,
        (),
        "do not have",
    ),
    "joining shapes": (
        Concatenate(name="s", inputs=(0, 1), output=2, axis=0),
        (spec(), spec((2, 6, 7))),
        (),
        "differ beyond",
    ),
    "reshape": (Reshape(**PLACE, shape=(5, 5)), (spec(),), (), "cannot turn"),
    "sum pool on features": (pool(2, 2), (FLAT,), (), "with 3 axes"),
    "sum pool kernel": (pool(7, 1), (spec(),), (), "does not fit"),
    "sum pool stride": (pool(2, 0), (spec(),), (), "does not fit"),
    "sum pool padding": (pool(2, 1, padding=2), (spec(),), (), "does not fit"),
    "adaptive on features": (AdaptiveSumPool2d(**PLACE, output_size=(1, 1)), (FLAT,), (), "with 3 axes"),
    "adaptive size": (AdaptiveSumPool2d(**PLACE, output_size=(8193, 1)), (spec(),), (), "output size"),
    "adaptive nothing": (AdaptiveSumPool2d(**PLACE, output_size=(0, 1)), (spec(),), (), "output size"),
    "pad features": (pad(), (FLAT,), (), "with 3 axes"),
    "pad negative": (pad(top=-1), (spec(),), (), "negative border"),
    "pad wide": (pad(left=9), (spec(),), (), "wider than its input"),
    "added constant": (AddConstant(**PLACE, value=-9), (spec(),), (), "beyond its input's bound"),
    "pad value": (pad(value=9), (spec(),), (), "beyond its input's bound"),
    "slice features": (cut((0, 1, 1)), (FLAT,), (), "with 3 axes"),
    "slice end": (cut((0, 7, 1)), (spec(),), (), "slices outside"),
    "slice start": (cut((-1, 3, 1)), (spec(),), (), "slices outside"),
    "slice step": (cut((0, 3, 0)), (spec(),), (), "slices outside"),
    "slice nothing": (cut((3, 3, 1)), (spec(),), (), "slices outside"),
    "lift": (Lift(**PLACE, factor=0), (spec(),), (), "factor below 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_step_refuses_what_it_cannot_take(case: str) -> None:
    step, inputs, parameters, rule = BROKEN[case]
    with pytest.raises(InvalidInput, match=rule):
        step.result(inputs, parameters)


def image(shape: tuple[int, int, int] = IMAGE, *, scale: Fraction = Fraction(4), name: str = "x") -> Input:
    return Input(name=name, inputs=(), output=0, shape=shape, scale=scale)


def shown(shape: tuple[int, int, int] = IMAGE, *, scale: Fraction = Fraction(4), bound: int = 1) -> Plan:
    """The image as it is, given back: the smallest plan."""
    end = ToShared(name="end", inputs=(0,), output=1)
    values = tuple(ValueSpec(shape, scale, form, bound) for form in Form)
    return Plan(ring=Ring.RING_32, steps=(image(shape, scale=scale), end), values=values, parameters=())


def product(*parameters: ParameterSpec, features: int = 4, scale: Fraction = Fraction(4)) -> Plan:
    """image -> flatten -> linear with the first parameter."""
    weight = parameters[0]
    steps = (
        image((1, 1, features), scale=scale),
        Flatten(name="flat", inputs=(0,), output=1),
        Linear(name="end", inputs=(1,), output=2, weight=0, bias=None),
    )
    values = (
        ValueSpec((1, 1, features), scale, Form.MASKED, 1),
        ValueSpec((features,), scale, Form.MASKED, 1),
        ValueSpec((weight.shape[0],), scale * weight.scale, Form.SHARED, 1),
    )
    return Plan(ring=Ring.RING_32, steps=steps, values=values, parameters=parameters)


def weight(name: str = "w", shape: Shape = (2, 4), *, scale: int = 4, offset: int = 0) -> ParameterSpec:
    return ParameterSpec(name, shape, Fraction(scale), offset)


def test_the_smallest_plans_are_valid() -> None:
    assert shown().cost(1).rounds == 1
    assert product(weight()).parameter_length == 8


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: shown((2, 0, 8)), "empty value"),
        (lambda: shown((2, 8192, 8192)), "more than 67108864 elements"),
        (lambda: shown((1, 1, 9000)), "wider or higher"),
        (lambda: shown(scale=Fraction(2**30), bound=-10), "leaves no room"),
        (lambda: shown(bound=29), "may overflow"),
        (lambda: shown(bound=-65), r"beyond 2\^64"),
        (lambda: product(weight(offset=1)), "right behind"),
        (lambda: product(weight(shape=(2, 0))), "is empty"),
        (lambda: product(weight(scale=2**35), scale=Fraction(1, 2**20)), "scale of parameter"),
        (lambda: product(weight(shape=(2**15 + 1, 8192)), features=8192), "more than 268435456 parameters"),
        (lambda: product(weight(), weight("v", offset=8)), "used once each"),
        (lambda: product(weight(), weight(offset=8)), "used once each|one name"),
    ],
)
def test_a_plan_refuses_what_its_steps_alone_allow(build, rule) -> None:
    with pytest.raises(InvalidInput, match=rule):
        build()


def test_steps_are_numbered_in_order_and_named_once() -> None:
    values = shown().values
    for end, rule in (
        (ToShared(name="end", inputs=(0,), output=7), "out of order"),
        (ToShared(name="end", inputs=(-2,), output=1), "out of order"),
        (ToShared(name="end", inputs=(0, 0), output=1), "takes 1 inputs, not 2"),
        (ToShared(name="x", inputs=(0,), output=1), "two steps have one name"),
    ):
        with pytest.raises(InvalidInput, match=rule):
            Plan(ring=Ring.RING_32, steps=(image(), end), values=values, parameters=())


def test_the_reader_limits_length_and_lists_before_it_builds_anything() -> None:
    with pytest.raises(InvalidInput, match="longer than 3 bytes"):
        codec.parse(b"[1,2]", max_bytes=3)
    with pytest.raises(InvalidInput, match="at most"):
        codec.load_list([0] * (codec.MAX_LIST + 1), what="steps")
    with pytest.raises(InvalidInput, match="not a list"):
        codec.load_list({}, what="steps")
