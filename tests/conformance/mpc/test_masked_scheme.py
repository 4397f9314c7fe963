"""Each operation of the masked scheme against integer arithmetic, at the cost it declares."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from libs.core.errors import MaskReuse
from libs.core.ids import PARTIES, PartyId
from libs.mpc.cost import Cost, declared_cost
from libs.mpc.kernels.linear import conv2d
from libs.mpc.kernels.linear import linear as dense
from libs.mpc.kernels.shapes import ConvolutionShape
from libs.mpc.lockstep import Transcript, run_lockstep
from libs.mpc.prg import MaskSource, PairKey, random_ring
from libs.mpc.program import Program, Round
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.additive.rescale import PublicRatio, rescale_program
from libs.mpc.schemes.additive.sharing import join
from libs.mpc.schemes.cleartext.relu import relu as cleartext_relu
from libs.mpc.schemes.cleartext.rescale import rescale as cleartext_rescale
from libs.mpc.schemes.cleartext.sign_bit import sign_bit as cleartext_sign_bit
from libs.mpc.schemes.cleartext.square_sum import square_sum as cleartext_square_sum
from libs.mpc.schemes.masked import linear as linear_
from libs.mpc.schemes.masked import open as open_
from libs.mpc.schemes.masked import relu as relu_
from libs.mpc.schemes.masked import rescale as rescale_
from libs.mpc.schemes.masked import sign_bit as sign_
from libs.mpc.schemes.masked import square_sum as square_
from libs.mpc.schemes.masked.comparison import RELU_OPERATIONS, Comparison
from libs.mpc.schemes.masked.roles import Evaluator, Roles
from libs.mpc.schemes.masked.sign_bit import SignWindow
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape

RINGS = list(Ring)
ROLES = [Roles.rotated(turn) for turn in range(3)]


def signed(values: np.ndarray, ring: Ring) -> np.ndarray:
    return values.astype(np.int64).astype(ring.signed_dtype).view(ring.dtype)


def integers(values: RingArray, ring: Ring) -> np.ndarray:
    return values.view(ring.signed_dtype).astype(np.int64)


@dataclass
class World:
    """Keys of three parties, and the two evaluators' ends of one opened value."""

    ring: Ring
    roles: Roles

    def __post_init__(self) -> None:
        self.keys = {pair: secrets.token_bytes(32) for pair in ((0, 1), (0, 2), (1, 2))}

    def sources(self, me: PartyId) -> dict[PartyId, MaskSource]:
        return {
            peer: PairKey(self.keys[min(me, peer), max(me, peer)]).for_computation("c")
            for peer in PARTIES
            if peer != me
        }

    def tapes(self) -> tuple[DealerTape, dict[PartyId, tuple[Evaluator, EvaluatorTape]]]:
        mine = self.sources(self.roles.dealer)
        dealer = DealerTape(mine[self.roles.first], mine[self.roles.second])
        ends = {}
        for me in (self.roles.first, self.roles.second):
            masks = self.sources(me)[self.roles.dealer]
            evaluator = Evaluator.of(me, self.roles, masks)
            ends[me] = (evaluator, EvaluatorTape(masks, lead=evaluator.lead))
        return dealer, ends


def run_after_open(
    world: World, x: np.ndarray, deal: Any, prepare: Any, online: Any, *, result: Ring | None = None
) -> tuple[np.ndarray, Transcript, int, Transcript]:
    """Open additive shares of x, run one operation on the opened value, and add up the result.

    Returns it with the transcripts of opening and operation, and the bytes dealt."""
    ring = world.ring
    shares = [random_ring(x.shape, ring)]
    shares.append(signed(x, ring) - shares[0])
    dealer, ends = world.tapes()
    r = open_.deal_open(dealer, "x", x.shape, ring)
    deal(dealer, r)
    dealt_bytes = dealer.size_bytes
    ends[world.roles.second][1].supply(dealer.take_all())
    masks, materials = {}, {}
    for me in (world.roles.first, world.roles.second):
        masks[me] = open_.prepare_open(ends[me][1], "x", x.shape, ring)
        materials[me] = prepare(ends[me][1], masks[me])
    openers = {
        me: open_.open_masked(ends[me][0], "x", share, masks[me])
        for me, share in zip(masks, shares, strict=True)
    }
    opened, first = run_lockstep(openers)
    m = opened[world.roles.first]
    assert (m == opened[world.roles.second]).all()
    assert (m == signed(x, ring) + r).all()
    results, second = run_lockstep({me: online(ends[me][0], m, materials[me]) for me in masks})
    return integers(sum(results.values()), result or ring), first, dealt_bytes, second


def assert_costs(world: World, cost: Cost, transcript: Transcript, dealt: int) -> None:
    first, second = world.roles.first, world.roles.second
    assert transcript.rounds == {first: cost.rounds, second: cost.rounds}
    assert transcript.bytes_sent(first, second) == cost.online_bytes
    assert transcript.bytes_sent(second, first) == cost.online_bytes
    assert dealt == cost.dealt_bytes


def immediately(value: RingArray) -> Program[RingArray]:
    yield from ()
    return value


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("ratio", [(1, 12), (1 << 20, 32), (3, 5), (7, 1), (0xFFFFFFFF, 32)])
def test_rescaling_is_within_one_unit_and_costs_no_round(
    ring: Ring, roles: Roles, ratio: tuple[int, int]
) -> None:
    world, (multiplier, shift) = World(ring, roles), ratio
    limit = 2 ** (ring.bits - 2) // max(1, -(-multiplier // (1 << shift)))
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.integers(-limit + 1, limit, 5000), [0, 1, -1, limit - 1, 1 - limit]])
    got, opened, dealt, transcript = run_after_open(
        world,
        x,
        lambda tape, r: rescale_.deal_rescale(tape, "t", r, multiplier=multiplier, shift=shift, ring=ring),
        lambda tape, mask: rescale_.prepare_rescale(tape, "t", mask.size, ring),
        lambda ev, m, dealt: immediately(
            rescale_.rescale(m, dealt, multiplier=multiplier, shift=shift, lead=ev.lead)
        ),
    )
    exact = [Fraction(int(v) * multiplier, 1 << shift) for v in x]
    assert max(abs(int(g) - e) for g, e in zip(got, exact, strict=True)) < 2
    oracle = cleartext_rescale(signed(x, ring), multiplier=multiplier, shift=shift, ring=ring)
    offset_is_rounded = multiplier << (ring.bits - 2) & ((1 << shift) - 1) != 0
    assert np.abs(got - integers(oracle, ring)).max() <= 1 + offset_is_rounded
    assert_costs(world, open_.open_cost(x.size, ring), opened, 0)
    assert_costs(world, declared_cost(rescale_.rescale)(x.size, ring), transcript, dealt)


def test_truncation_is_unbiased() -> None:
    world, n = World(Ring.RING_32, ROLES[0]), 200_000
    x = np.full(n, -12345)
    got, *_ = run_after_open(
        world,
        x,
        lambda tape, r: rescale_.deal_rescale(tape, "t", r, multiplier=1, shift=6, ring=world.ring),
        lambda tape, mask: rescale_.prepare_rescale(tape, "t", mask.size, world.ring),
        lambda ev, m, dealt: immediately(rescale_.rescale(m, dealt, multiplier=1, shift=6, lead=ev.lead)),
    )
    assert abs(got.mean() - (-12345 / 64)) < 0.01


RELU_SHAPES = [
    (1, 12, 12, 16), (1 << 20, 32, 12, 16), (5, 6, 3, 12), (1, 0, 0, 16), (1, 0, 4, 8), (3, 12, 10, 20),
]  # fmt: skip


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("parameters", RELU_SHAPES)
@pytest.mark.parametrize("n", [1, 8, 3001])
@pytest.mark.parametrize("comparison", Comparison)
def test_relu_is_within_two_units_at_its_declared_cost(
    ring: Ring, roles: Roles, parameters: tuple[int, int, int, int], n: int, comparison: Comparison
) -> None:
    shape = relu_.ReluShape(*parameters, ring)
    operations = RELU_OPERATIONS[comparison]
    world = World(ring, roles)
    limit = min((2 ** (shape.window_bits - 1) - 1) << shape.window_low, 2 ** (ring.bits - 2))
    edges = [0, 1, -1, limit - 1, -limit + 1, 2**shape.window_low, -(2**shape.window_low)]
    rng = np.random.default_rng(2)
    x = np.concatenate([edges, rng.integers(-limit + 1, limit, n)])[:n]
    got, _, dealt, transcript = run_after_open(
        world,
        x,
        lambda tape, r: operations.deal(tape, "r", r, shape),
        lambda tape, mask: operations.prepare(tape, "r", mask, shape),
        lambda ev, m, material: operations.evaluate(ev, "r", m, material, shape),
    )
    oracle = cleartext_relu(signed(x, ring), multiplier=shape.multiplier, shift=shape.shift, ring=ring)
    clear_of_zero = np.abs(x) > 2**shape.window_low
    assert (np.abs(got - integers(oracle, ring)) <= 1)[clear_of_zero].all()
    q = Fraction(shape.multiplier, 1 << shape.shift)
    slack = 2 + (2**shape.window_low) * q  # either sign is allowed this close to zero
    for value, result in zip(x, got, strict=True):
        exact = max(int(value), 0) * q
        near_zero = abs(int(value)) <= 2**shape.window_low
        assert abs(int(result) - exact) < (slack if near_zero else 2)
    cost = declared_cost(operations.evaluate)(x.size, shape)
    assert cost == operations.cost(x.size, shape)
    assert cost.rounds == (2 if comparison is Comparison.NARROW else 1)
    assert_costs(world, cost, transcript, dealt)


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("kind", ["dense", "conv", "grouped", "dilated"])
def test_linear_layers_are_exact_and_send_nothing(ring: Ring, roles: Roles, kind: str) -> None:
    world = World(ring, roles)
    dealer, ends = world.tapes()
    draw = lambda *shape: random_ring(shape, ring)  # noqa: E731
    if kind == "dense":
        x, w, product = draw(3, 20), draw(7, 20), dense
        bias = draw(7)
    else:
        groups = 2 if kind == "grouped" else 1
        settings = ConvolutionShape((2, 1), (1, 2), (2, 1) if kind == "dilated" else (1, 1), groups)
        x, w = draw(2, 4, 9, 8), draw(6, 4 // groups, 3, 3)
        bias = draw(6, 1, 1)
        product = lambda a, b: conv2d(a, b, settings)  # noqa: E731
    x_masks = [draw(*x.shape), draw(*x.shape)]
    w_masks = [draw(*w.shape), draw(*w.shape)]
    bias_shares = [draw(*bias.shape)]
    bias_shares.append(bias - bias_shares[0])
    m_x, m_w = x + x_masks[0] + x_masks[1], w + w_masks[0] + w_masks[1]
    linear_.deal_linear(dealer, "l", x_masks[0] + x_masks[1], w_masks[0] + w_masks[1], product, ring)
    dealt = dealer.size_bytes
    ends[roles.second][1].supply(dealer.take_all())
    parts = []
    for j, me in enumerate((roles.first, roles.second)):
        u = linear_.prepare_linear(ends[me][1], "l", x_masks[j], m_w, bias_shares[j], product, ring)
        share = m_w - w_masks[0] if j == 0 else -w_masks[1]
        parts.append(linear_.linear(m_x, share, u, product))
    assert (parts[0] + parts[1] == product(x, w) + bias).all()
    assert dealt == declared_cost(linear_.linear)(parts[0].size, ring).dealt_bytes


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("ratio", [Fraction(3, 2), Fraction(5232, 3488), Fraction(1, 3), Fraction(100, 7)])
def test_three_shares_are_rescaled_to_three_shares(ring: Ring, roles: Roles, ratio: Fraction) -> None:
    world, n = World(ring, roles), 1000
    limit = 2 ** (ring.bits - 2) // 16
    x = np.random.default_rng(3).integers(-limit, limit, n)
    shares = [random_ring((n,), ring), random_ring((n,), ring)]
    shares.append(signed(x, ring) - shares[0] - shares[1])
    public = PublicRatio.nearest(ratio)
    results, transcript = run_lockstep(
        [rescale_program(p, roles, world.sources(p), shares[p], public, ring) for p in PARTIES]
    )
    got = integers(join([results[p] for p in PARTIES]), ring)
    assert max(abs(int(g) - int(v) * public.value) for g, v in zip(got, x, strict=True)) < 2
    assert abs(public.value / ratio - 1) < Fraction(1, 1 << 30)
    cost = declared_cost(rescale_program)(n, ring)
    assert transcript.bytes_sent(roles.first, roles.second) == cost.online_bytes
    assert transcript.bytes_sent(roles.second, roles.first) == cost.online_bytes
    assert transcript.bytes_sent(roles.dealer, roles.second) == cost.dealt_bytes
    assert transcript.bytes_sent(roles.dealer, roles.first) == 0


@pytest.mark.parametrize("ratio", [(1, 12), (1, 0)])
@pytest.mark.parametrize("comparison", Comparison)
def test_everything_that_is_sent_looks_uniform(comparison: Comparison, ratio: tuple[int, int]) -> None:
    """A constant secret, opened and compared: byte frequencies of each message pass a chi-square test."""
    world, n = World(Ring.RING_32, ROLES[1]), 60_000
    operations = RELU_OPERATIONS[comparison]
    shape = relu_.ReluShape(*ratio, 12, 16, world.ring)
    dealt: list[np.ndarray] = []

    def deal(tape: DealerTape, r: RingArray) -> None:
        operations.deal(tape, "r", r, shape)
        dealt.append(tape.take_all())
        tape.correct(dealt[0])

    _, opened, _, transcript = run_after_open(
        world,
        np.full(n, 4096 * 3),
        deal,
        lambda tape, mask: operations.prepare(tape, "r", mask, shape),
        lambda ev, m, material: operations.evaluate(ev, "r", m, material, shape),
    )
    messages = [(sent.label, sent.message) for sent in opened.messages + transcript.messages]
    for label, message in [*messages, ("dealt", {"corrections": dealt[0]})]:
        for array in message.values():
            counts = np.bincount(array.reshape(-1).view(np.uint8), minlength=256)
            expected = counts.sum() / 256
            chi_square = ((counts - expected) ** 2 / expected).sum()
            assert chi_square < 400, label  # 255 degrees of freedom: p < 1e-8 beyond 390


@pytest.mark.parametrize("comparison", Comparison)
def test_a_relu_draws_each_of_its_masks_once(comparison: Comparison) -> None:
    world, operations = World(Ring.RING_32, ROLES[0]), RELU_OPERATIONS[comparison]
    shape = relu_.ReluShape(1, 12, 12, 16, world.ring)
    dealer, ends = world.tapes()
    r = open_.deal_open(dealer, "x", (5,), world.ring)
    operations.deal(dealer, "r", r, shape)
    with pytest.raises(MaskReuse):
        operations.deal(dealer, "r", r, shape)
    tape = ends[world.roles.first][1]
    operations.prepare(tape, "r", r, shape)
    with pytest.raises(MaskReuse):
        operations.prepare(tape, "r", r, shape)


def test_a_round_is_data() -> None:
    assert Round("x").sends == {}


SIGN_WINDOWS = [(12, 20, Ring.RING_32), (0, 20, Ring.RING_32), (44, 20, Ring.RING_64), (5, 16, Ring.RING_64),
                (3, 8, Ring.RING_32)]  # fmt: skip


@pytest.mark.parametrize("roles", ROLES)
@pytest.mark.parametrize("window", SIGN_WINDOWS)
def test_sign_bits_are_right_to_the_edges_of_their_window_at_their_declared_cost(
    roles: Roles, window: tuple[int, int, Ring]
) -> None:
    shape = SignWindow(*window)
    world, ulp, half = World(shape.ring, roles), 1 << shape.low, 1 << (shape.low + shape.bits - 1)
    edges = [0, 1, -ulp - 1, ulp, half - ulp - 1, half - ulp - 2, -half, -half + 1, -ulp, -1]
    x = np.concatenate([edges, np.random.default_rng(7).integers(-half, half - ulp, 3000)])
    got, _, dealt, transcript = run_after_open(
        world,
        x,
        lambda tape, r: sign_.deal_sign_bit(tape, "s", r, shape),
        lambda tape, mask: sign_.prepare_sign_bit(tape, "s", mask.size, shape),
        lambda ev, m, material: sign_.sign_bit(ev, "s", m, material, shape),
    )
    certain = (x >= 0) | (x < -ulp)
    oracle = integers(cleartext_sign_bit(signed(x, shape.ring), ring=shape.ring), shape.ring)
    assert (got == oracle)[certain].all()
    assert set(got.tolist()) <= {0, 1}
    if shape.low == 0:
        assert (got == oracle)[x < 0].all()
    assert_costs(world, declared_cost(sign_.sign_bit)(x.size, shape), transcript, dealt)


@pytest.mark.parametrize("roles", ROLES)
def test_sums_of_squares_are_exact_integers_and_send_nothing(roles: Roles) -> None:
    world, limit = World(Ring.RING_32, roles), (1 << 30) - 1
    rng = np.random.default_rng(8)
    x = np.stack(
        [
            rng.integers(-limit, limit + 1, 6),
            np.full(6, limit),
            np.full(6, -limit),
            np.full(6, 1 << 16),
            [0] * 6,
        ]
        + [rng.integers(-9, 9, 6) for _ in range(400)]
    )
    got, _, dealt, transcript = run_after_open(
        world,
        x,
        lambda tape, r: square_.deal_square_sum(tape, "q", r),
        lambda tape, mask: square_.prepare_square_sum(tape, "q", mask.shape),
        lambda ev, m, dealt: immediately(square_.square_sum(m, dealt, lead=ev.lead)),
        result=Ring.RING_64,
    )
    exact = [sum(int(v) ** 2 for v in row) for row in x]
    assert [int(g) for g in got.view(np.uint64)] == exact
    assert cleartext_square_sum(signed(x, world.ring)).tolist() == exact
    assert_costs(world, declared_cost(square_.square_sum)(x.size), transcript, dealt)


@pytest.mark.parametrize("low", [0, 12])
def test_what_a_sign_bit_sends_and_deals_looks_uniform(low: int) -> None:
    """A constant secret; the bits that are opened, and each evaluator's share of the result's mask."""
    world, n, shape = World(Ring.RING_32, ROLES[2]), 60_000, SignWindow(low, 20, Ring.RING_32)
    dealt: list[np.ndarray] = []

    def deal(tape: DealerTape, r: RingArray) -> None:
        sign_.deal_sign_bit(tape, "s", r, shape)
        square_.deal_square_sum(tape, "q", r)
        dealt.append(tape.take_all())
        tape.correct(dealt[0])

    *_, transcript = run_after_open(
        world,
        np.full(n, -70_000),
        deal,
        lambda tape, mask: sign_.prepare_sign_bit(tape, "s", mask.size, shape),
        lambda ev, m, material: sign_.sign_bit(ev, "s", m, material, shape),
    )
    arrays = [a for sent in transcript.messages for a in sent.message.values()]
    for array in [*arrays, dealt[0]]:
        counts = np.bincount(array.reshape(-1).view(np.uint8), minlength=256)
        expected = counts.sum() / 256
        assert ((counts - expected) ** 2 / expected).sum() < 400
