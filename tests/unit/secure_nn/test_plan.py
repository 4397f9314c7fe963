"""A plan that breaks a rule cannot be built, least of all from the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.codec import canonical
from libs.secure_nn.compile import compile_module
from libs.secure_nn.plan import MAX_JSON_BYTES, Plan
from libs.secure_nn.steps import Input, Reshape, Subtract, ToShared
from libs.secure_nn.values import Form, ValueSpec

Document = dict[str, Any]


class Residual(nn.Module):
    """Uses most kinds of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.end = nn.MaxPool2d(3, 2, 1), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 8, 8) -> (B, 2)."""
        y = torch.relu(self.a(x))
        y = self.pool(torch.relu(self.b(y) + y))
        result: torch.Tensor = self.end(nn.functional.avg_pool2d(y, 2).flatten(1))
        return result


@pytest.fixture(scope="module")
def plan() -> Plan:
    torch.manual_seed(0)
    module = Residual().eval()
    return compile_module(module, input_shape=(1, 8, 8), bounds=calibrate(module, torch.rand(16, 1, 8, 8)))


def test_a_plan_survives_the_wire_unchanged(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.hash == plan.hash
    assert len(plan.hash) == 64


def test_the_json_has_no_floats_no_spaces_and_sorted_keys(plan: Plan) -> None:
    text = plan.to_json().decode("ascii")
    document = json.loads(text, parse_float=lambda _: pytest.fail("a float"))
    assert " " not in text
    assert canonical(document) == plan.to_json()


def test_the_ends_of_a_plan_are_what_a_client_needs(plan: Plan) -> None:
    assert plan.input_shape == (1, 8, 8)
    assert plan.output_shape == (2,)
    assert plan.input_scale == plan.values[0].scale
    assert plan.output_scale == plan.values[-1].scale
    assert plan.parameter_length == sum(p.numel() for p in Residual().parameters())


def _step(kind: str, /, **changes: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        next(step for step in document["steps"] if step["kind"] == kind).update(changes)

    return change


def _value(kind: str, /, **changes: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        step = next(step for step in document["steps"] if step["kind"] == kind)
        document["values"][step["output"]].update(changes)

    return change


def _put(key: str, value: Any) -> Callable[[Document], None]:
    return lambda document: document.update({key: value})


def _parameter(index: int, **changes: Any) -> Callable[[Document], None]:
    return lambda document: document["parameters"][index].update(changes)


def _swap_last_steps(document: Document) -> None:
    document["steps"][-1], document["steps"][-2] = document["steps"][-2], document["steps"][-1]


def _drop_last(document: Document) -> None:
    document["steps"].pop()
    document["values"].pop()


def _unused_step(document: Document) -> None:
    count = len(document["steps"])
    document["steps"].insert(count, {"kind": "to_shared", "name": "spare", "inputs": [0], "output": count})
    document["values"].append({**document["values"][0], "form": "shared"})


def _second_input(document: Document) -> None:
    count = len(document["steps"])
    document["steps"].append({**document["steps"][0], "name": "again", "output": count})
    document["values"].append(document["values"][0])


CORRUPTIONS: dict[str, Callable[[Document], object]] = {
    "another format": _put("format", "trefoil-plan-0"),
    "an unknown ring": _put("ring", 16),
    "a ring that is true": _put("ring", True),
    "an unknown key": _put("extra", 1),
    "a missing key": lambda d: d.pop("values"),
    "steps that are no list": _put("steps", {}),
    "no steps": lambda d: d.update(steps=[], values=[], parameters=[]),
    "fewer values than steps": lambda d: d["values"].pop(),
    "a step without a kind": lambda d: d["steps"][1].pop("kind"),
    "an unknown kind": _step("relu", kind="sigmoid"),
    "an unknown key in a step": _step("relu", speed=1),
    "a missing key in a step": lambda d: d["steps"][1].pop("groups"),
    "a float": _step("conv2d", groups=1.0),
    "a truth value for a number": _step("conv2d", groups=True),
    "a string for a number": _step("relu", shift="3"),
    "a huge number": _step("lift", factor=2**70),
    "three numbers for a pair": _step("conv2d", stride=[1, 1, 1]),
    "a name with a slash": _step("conv2d", name="../a"),
    "a name twice": _step("conv2d", name="x"),
    "steps out of order": _swap_last_steps,
    "an input from later": _step("open", inputs=[9]),
    "a negative input": _step("open", inputs=[-1]),
    "too many inputs": _step("open", inputs=[1, 1]),
    "too few inputs": _step("add", inputs=[1]),
    "an input in the middle": _second_input,
    "a step that nothing uses": _unused_step,
    "a masked output": lambda d: (d["steps"].pop(), d["values"].pop()),
    "a wrong shape": _value("conv2d", shape=[4, 8, 9]),
    "an empty shape": _value("conv2d", shape=[]),
    "a zero in a shape": _value("conv2d", shape=[0, 8, 8]),
    "too many axes": _value("flatten", shape=[1, 1, 1, 16]),
    "an enormous image": _step("input", shape=[1, 2**20, 2**20]),
    "a wrong scale": _value("conv2d", scale="1/1"),
    "a wrong form": _value("conv2d", form="masked"),
    "an unknown form": _value("conv2d", form="clear"),
    "a bound that overflows the ring": _value("conv2d", bound=20),
    "an absurd bound": _value("conv2d", bound=-1000),
    "a fraction not in lowest terms": _value("input", scale="4/2"),
    "a negative fraction": _value("input", scale="-1/2"),
    "a fraction by zero": _value("input", scale="1/0"),
    "a weight that is not there": _step("conv2d", weight=99),
    "a parameter used twice": _step("linear", weight=0),
    "a gap between parameters": _parameter(1, offset=5),
    "two parameters of one name": _parameter(1, name="a.weight"),
    "a bias of another shape": _parameter(1, shape=[3]),
    "a weight of another shape": _parameter(0, shape=[4, 1, 9]),
    "a parameter scale beyond the ring": _parameter(0, scale=f"{2**40}/1"),
    "a stride of zero": _step("conv2d", stride=[0, 1]),
    "a negative padding": _step("conv2d", padding=[-1, 0]),
    "a padding beyond the kernel": _step("conv2d", padding=[4000, 4000]),
    "groups that do not divide": _step("conv2d", groups=3),
    "a shift beyond 32": _step("relu", shift=33),
    "a multiplier of zero": _step("relu", multiplier=0),
    "a window of 10 bits": _step("relu", window_bits=10),
    "a window below the bound": _step("relu", window_low=0),
    "a window beyond the ring": _step("relu", window_low=30),
    "a lift by zero": _step("lift", factor=0),
    "a slice beyond the image": _step("strided_slice2d", rows=[0, 99, 1]),
    "a slice of step zero": _step("strided_slice2d", rows=[0, 1, 0]),
    "a border wider than the image": _step("pad2d", left=500),
    "a negative border": _step("pad2d", left=-1),
    "a border beyond the bound": _step("pad2d", value=2**31),
    "a window of no size": _step("sum_pool2d", kernel=[0, 2]),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corrupted_plan_is_refused(plan: Plan, corruption: str) -> None:
    document = json.loads(plan.to_json())
    CORRUPTIONS[corruption](document)
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert data != plan.to_json()
    with pytest.raises(InvalidInput):
        Plan.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b" ",
        lambda data: data.replace(b",", b", ", 1),
        lambda data: data.replace(b'"ring":32', b'"ring":32,"ring":32'),
        lambda data: data[:-1],
        lambda data: b"[" * 100_000,
        lambda data: b"",
        lambda data: b"null",
        lambda data: b"\xff\xfe",
        lambda data: b" " * (MAX_JSON_BYTES + 1),
        lambda data: data.replace(b'"groups":1', b'"groups":' + b"1" * 5000),
        lambda data: data.replace(b'"groups":1', b'"groups":NaN'),
    ],
)
def test_anything_but_the_canonical_bytes_is_refused(plan: Plan, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InvalidInput):
        Plan.from_json(change(plan.to_json()))


def _image(name: str, value: int) -> Input:
    return Input(name=name, inputs=(), output=value, shape=(1, 2, 2), scale=Fraction(4))


def _of_image(form: Form) -> ValueSpec:
    return ValueSpec((1, 2, 2), Fraction(4), form, 1)


def test_a_plan_that_ends_in_the_open_is_refused() -> None:
    steps = (_image("x", 0), Reshape(name="same", inputs=(0,), output=1, shape=(1, 2, 2)))
    with pytest.raises(InvalidInput, match="last value is not shared"):
        Plan(ring=Ring.RING_32, steps=steps, values=(_of_image(Form.MASKED),) * 2, parameters=())


def test_a_second_input_is_refused() -> None:
    masked, shared = _of_image(Form.MASKED), _of_image(Form.SHARED)
    joined = Subtract(name="joined", inputs=(0, 1), output=2)
    steps = (_image("x", 0), _image("y", 1), joined, ToShared(name="end", inputs=(2,), output=3))
    with pytest.raises(InvalidInput, match="input is not its first step"):
        Plan(ring=Ring.RING_32, steps=steps, values=(masked, masked, masked, shared), parameters=())


def test_a_name_that_could_be_a_path_is_refused_when_building_too() -> None:
    steps = (_image("../x", 0), ToShared(name="end", inputs=(0,), output=1))
    values = (_of_image(Form.MASKED), _of_image(Form.SHARED))
    with pytest.raises(InvalidInput, match="letters, digits"):
        Plan(ring=Ring.RING_32, steps=steps, values=values, parameters=())


def test_a_plan_of_another_version_says_so(plan: Plan) -> None:
    with pytest.raises(InvalidInput, match="same version"):
        Plan.from_json(plan.to_json().replace(b"trefoil-plan-1", b"trefoil-plan-9"))


def test_a_plan_of_one_ring_is_not_a_plan_of_the_other(plan: Plan) -> None:
    assert plan.ring is Ring.RING_32
    document = json.loads(plan.to_json())
    document["ring"] = 64
    other = Plan.from_json(canonical(document))
    assert other.hash != plan.hash


def test_a_batch_of_no_images_has_no_cost(plan: Plan) -> None:
    with pytest.raises(InvalidInput):
        plan.cost(0)
