"""One encrypted prediction as three programs: deal, prepare, evaluate.

All three walk the plan's steps in order. The dealer walks with masks alone and deals what the steps need;
an evaluator walks once with its halves of the masks, before the input exists, and gathers its material;
then once with the input. Labels are the steps' names, which are unique in a plan, so no mask is drawn twice
within a computation. Protocol sections 2 to 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from libs.core.errors import Bug, InvalidInput, PeerViolation
from libs.mpc.program import ArraySpec, Program, Round, swap
from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked import linear as masked_linear
from libs.mpc.schemes.masked import open as masked_open
from libs.mpc.schemes.masked import rescale as masked_rescale
from libs.mpc.schemes.masked.comparison import RELU_OPERATIONS, Comparison
from libs.mpc.schemes.masked.roles import Dealer, Evaluator, Roles
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape
from libs.secure_nn import steps as s
from libs.secure_nn.local_ops import apply_local, is_local
from libs.secure_nn.pipelining import Cuts, SlicedProduct, cuts_of
from libs.secure_nn.plan import Plan
from libs.secure_nn.products import broadcast_bias, product_of
from libs.secure_nn.secure_model import DealerModel, EvaluatorModel
from libs.secure_nn.values import Form

SEGMENT_BYTES = 1 << 20
"""Corrections are sent as soon as this much has gathered, so that dealing and sending overlap."""

INPUT_LABEL = "input/mask"

OnStep = Callable[[s.Step], None]
"""Called with each step before it is worked on: for profiles. It learns names, never values."""


def _nobody_watches(_step: s.Step) -> None:
    pass


@dataclass(repr=False)
class Material:
    """One evaluator's part of one prediction, made before the input exists. Used once."""

    batch: int
    comparison: Comparison
    """What the ReLUs' material is for; all three parties use the same."""
    input_seed: bytes
    """For the client: PRG(seed) is this evaluator's half of the input's mask."""
    of_step: dict[str, Any] = field(default_factory=dict)
    bytes_received: int = 0


class _Values:
    """The values of a walk by number; each is dropped after its last use."""

    def __init__(self, plan: Plan) -> None:
        self._last_use = {index: i for i, step in enumerate(plan.steps) for index in step.inputs}
        self._held: dict[int, Any] = {}

    def inputs(self, step: s.Step) -> list[Any]:
        """Ring arrays; for an opening, perhaps a product that is still to be computed."""
        return [self._held[index] for index in step.inputs]

    def store(self, step: s.Step, value: RingArray | SlicedProduct) -> None:
        self._held[step.output] = value

    def drop_unused(self, position: int, step: s.Step) -> None:
        for index in set(step.inputs):
            if self._last_use[index] == position:
                self._held.pop(index, None)

    def __getitem__(self, index: int) -> RingArray:
        value: RingArray = self._held[index]
        return value


def _dealt_bytes(step: s.Step, plan: Plan, batch: int, comparison: Comparison) -> int:
    return step.cost(
        inputs=step.specs(plan.values),
        output=plan.values[step.output],
        ring=plan.ring,
        batch=batch,
        comparison=comparison,
    ).dealt_bytes


def _segments(plan: Plan, batch: int, comparison: Comparison) -> Iterator[tuple[frozenset[str], int]]:
    """The steps whose corrections travel in one message, and its bytes; both sides cut alike."""
    names: set[str] = set()
    size = 0
    for step in plan.steps:
        dealt = _dealt_bytes(step, plan, batch, comparison)
        if dealt:
            names.add(step.name)
            size += dealt
        if size >= SEGMENT_BYTES:
            yield frozenset(names), size
            names, size = set(), 0
    if size:
        yield frozenset(names), size


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise InvalidInput("A prediction needs at least one image.")


# ---------------------------------------------------------------- the dealer


def deal_program(
    plan: Plan,
    model: DealerModel,
    dealer: Dealer,
    roles: Roles,
    *,
    batch: int,
    comparison: Comparison = Comparison.NARROW,
    on_step: OnStep = _nobody_watches,
) -> Program[None]:
    """Deal everything for `batch` images; only the second evaluator is sent anything."""
    _check_batch(batch)
    tape, masks = DealerTape(dealer.first, dealer.second), _Values(plan)
    waiting: set[str] = set()
    segments = _segments(plan, batch, comparison)
    names, size = next(segments, (frozenset[str](), 0))
    number = 0
    for position, step in enumerate(plan.steps):
        on_step(step)
        _deal_step(step, plan, model, tape, masks, batch, comparison)
        masks.drop_unused(position, step)
        waiting.add(step.name)
        if names and names <= waiting:
            if tape.size_bytes != size:
                raise Bug(f"The dealer made {tape.size_bytes} bytes where the plan declares {size}.")
            yield Round(f"deal/{number}", {roles.second: {"corrections": tape.take_all()}})
            number += 1
            names, size = next(segments, (frozenset[str](), 0))


def _deal_step(
    step: s.Step,
    plan: Plan,
    model: DealerModel,
    tape: DealerTape,
    masks: _Values,
    batch: int,
    comparison: Comparison,
) -> None:
    ring, output = plan.ring, plan.values[step.output]
    masked_inputs = all(spec.form is Form.MASKED for spec in step.specs(plan.values))
    if isinstance(step, s.Input):
        l1, l2 = tape.masks(INPUT_LABEL, (batch, *step.shape), ring)
        masks.store(step, l1 + l2)
    elif isinstance(step, s.WeightedStep):
        (x,) = masks.inputs(step)
        masked_linear.deal_linear(
            tape, step.name, x, model.masks[step.weight], product_of(step, model.device, model.prepared), ring
        )
    elif isinstance(step, s.Open):
        masks.store(step, masked_open.deal_open(tape, step.name, (batch, *output.shape), ring))
    elif isinstance(step, s.Relu):
        deal_relu = RELU_OPERATIONS[comparison].deal
        deal_relu(tape, step.name, masks.inputs(step)[0], step.shape_in(plan.ring))
    elif isinstance(step, s.Rescale):
        masked_rescale.deal_rescale(
            tape, step.name, masks.inputs(step)[0], multiplier=step.multiplier, shift=step.shift, ring=ring
        )
    elif isinstance(step, s.ToShared):
        pass
    elif is_local(step):
        if masked_inputs:
            masks.store(step, apply_local(step, masks.inputs(step), ring=ring, constants=False))
    else:
        raise Bug(f"The dealer does not know the step {step.kind}.")


# ---------------------------------------------------------------- the evaluators, before the input


def prepare_program(
    plan: Plan,
    model: EvaluatorModel,
    evaluator: Evaluator,
    *,
    batch: int,
    comparison: Comparison = Comparison.NARROW,
    on_step: OnStep = _nobody_watches,
) -> Program[Material]:
    """Gather this evaluator's material. The first evaluator waits for nobody, the second for the dealer."""
    _check_batch(batch)
    tape, masks = EvaluatorTape(evaluator.masks, lead=evaluator.lead), _Values(plan)
    seed_stream = evaluator.masks.stream(INPUT_LABEL)
    material = Material(batch, comparison, seed_stream.seed())
    ends = iter(_segments(plan, batch, comparison))
    names: frozenset[str] = frozenset()
    number = 0
    for position, step in enumerate(plan.steps):
        on_step(step)
        needs_corrections = not evaluator.lead and _dealt_bytes(step, plan, batch, comparison) > 0
        if needs_corrections and step.name not in names:
            names, size = next(ends)
            spec = {"corrections": ArraySpec(np.dtype(np.uint8), (size,))}
            inbox = yield Round(f"deal/{number}", awaits={evaluator.dealer: spec})
            tape.supply(inbox[evaluator.dealer]["corrections"])
            material.bytes_received += size
            number += 1
        if isinstance(step, s.Input):
            masks.store(step, seed_stream.ring((batch, *step.shape), plan.ring))
        else:
            _prepare_step(step, plan, model, tape, masks, material)
        masks.drop_unused(position, step)
    return material


def _prepare_step(
    step: s.Step,
    plan: Plan,
    model: EvaluatorModel,
    tape: EvaluatorTape,
    masks: _Values,
    material: Material,
) -> None:
    ring, output, batch = plan.ring, plan.values[step.output], material.batch
    if isinstance(step, s.WeightedStep):
        bias = None if step.bias is None else broadcast_bias(step, model.shares[step.bias])
        material.of_step[step.name] = masked_linear.prepare_linear(
            tape,
            step.name,
            masks.inputs(step)[0],
            model.masked[step.weight],
            bias,
            product_of(step, model.device, model.prepared),
            ring,
        )
    elif isinstance(step, s.Open):
        mask = masked_open.prepare_open(tape, step.name, (batch, *output.shape), ring)
        masks.store(step, mask)
        material.of_step[step.name] = mask
    elif isinstance(step, s.Relu):
        prepare_relu = RELU_OPERATIONS[material.comparison].prepare
        material.of_step[step.name] = prepare_relu(
            tape, step.name, masks.inputs(step)[0], step.shape_in(plan.ring)
        )
    elif isinstance(step, s.Rescale):
        n = batch * output.elements
        material.of_step[step.name] = masked_rescale.prepare_rescale(tape, step.name, n, ring)
    elif isinstance(step, s.ToShared):
        material.of_step[step.name] = masks.inputs(step)[0]
    elif is_local(step):
        if all(spec.form is Form.MASKED for spec in step.specs(plan.values)):
            masks.store(step, apply_local(step, masks.inputs(step), ring=ring, constants=False))
    else:
        raise Bug(f"The evaluator does not know the step {step.kind}.")


# ---------------------------------------------------------------- the evaluators, with the input


def evaluate_program(
    plan: Plan,
    model: EvaluatorModel,
    evaluator: Evaluator,
    material: Material,
    masked_input: RingArray,
    *,
    digest: bytes,
    computation: str,
    on_step: OnStep = _nobody_watches,
) -> Program[RingArray]:
    """This evaluator's share of the output (batch, *output shape), at the plan's output scale.

    `digest` is the SHA-256 of the masked input as received; both evaluators must have been given the same,
    else a client could make them open a difference of its choice.
    """
    expected = (material.batch, *plan.input_shape)
    if masked_input.shape != expected or masked_input.dtype != plan.ring.dtype:
        raise InvalidInput(f"The masked input must be {expected} {plan.ring.bits}-bit ring elements.")
    theirs = yield from swap("input/digest", evaluator.peer, "sha256", np.frombuffer(digest, np.uint8))
    if theirs.tobytes() != digest:
        raise PeerViolation(
            computation=computation, sender="client", rule="the two evaluators were given different inputs"
        )
    values = _Values(plan)
    for position, step in enumerate(plan.steps):
        on_step(step)
        if isinstance(step, s.Input):
            values.store(step, masked_input)
        elif isinstance(step, s.WeightedStep):
            cuts = cuts_of(plan, position, batch=material.batch)
            values.store(step, _multiply(step, model, material, values, cuts))
        else:
            value = yield from _evaluate_step(step, plan, evaluator, material, values)
            values.store(step, value)
        values.drop_unused(position, step)
    return values[plan.steps[-1].output]


def _multiply(
    step: s.WeightedStep, model: EvaluatorModel, material: Material, values: _Values, cuts: Cuts
) -> RingArray | SlicedProduct:
    """This evaluator's share of the product; in slices, it is computed by the opening behind it."""
    (m,), u = values.inputs(step), material.of_step.pop(step.name)
    share, product = model.shares[step.weight], product_of(step, model.device, model.prepared)
    if len(cuts) > 1:
        return SlicedProduct(m, share, u, product, cuts)
    return masked_linear.linear(m, share, u, product)


def _evaluate_step(
    step: s.Step,
    plan: Plan,
    evaluator: Evaluator,
    material: Material,
    values: _Values,
) -> Program[RingArray]:
    inputs = values.inputs(step)
    ready = material.of_step.pop(step.name, None)
    if isinstance(step, s.Open) and isinstance(inputs[0], SlicedProduct):
        slices = inputs[0]
        opening = masked_open.open_in_slices(evaluator, step.name, slices.shares(), slices.cuts, ready)
        return (yield from opening)
    if isinstance(step, s.Open):
        return (yield from masked_open.open_masked(evaluator, step.name, inputs[0], ready))
    if isinstance(step, s.Relu):
        relu = RELU_OPERATIONS[material.comparison].evaluate
        return (yield from relu(evaluator, step.name, inputs[0], ready, step.shape_in(plan.ring)))
    if isinstance(step, s.Rescale):
        return masked_rescale.rescale(
            inputs[0], ready, multiplier=step.multiplier, shift=step.shift, lead=evaluator.lead
        )
    if isinstance(step, s.ToShared):
        share: RingArray = inputs[0] - ready if evaluator.lead else plan.ring.constant(0) - ready
        return share
    masked = all(spec.form is Form.MASKED for spec in step.specs(plan.values))
    return apply_local(step, inputs, ring=plan.ring, constants=masked or evaluator.lead)
