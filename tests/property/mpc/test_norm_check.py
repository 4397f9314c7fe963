"""Checked contributions: the honest pass, the long and the wrapped do not, and one bit each is opened."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.core.errors import InvalidInput, PeerViolation
from libs.core.ids import PARTIES, PartyId
from libs.mpc import norm_check
from libs.mpc.cost import declared_cost
from libs.mpc.kernels import reference
from libs.mpc.kernels.sketch import BUCKETS, SKETCHES
from libs.mpc.lockstep import Sent, Tamper, Transcript, run_lockstep
from libs.mpc.norm_bound import MAX_NORM_UNITS, NormBound
from libs.mpc.norm_check import METRIC_LIMIT, check_norms, toss_coin
from libs.mpc.prg import MaskSource, PairKey, Prg, random_ring
from libs.mpc.program import Message
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.cleartext.norm_check import check_norms as cleartext_check
from libs.mpc.schemes.masked.roles import Roles
from libs.mpc.sketch import SKETCH_LENGTH, RunningSketches, sketch

RING = Ring.RING_32
DIMENSION = 6000
WEIGHT = Fraction(1, 3)
MAX_NORM = 3 << 20
BOUND = NormBound.of(max_norm=MAX_NORM, weight=WEIGHT, length=DIMENSION)
HONEST = float(WEIGHT) * MAX_NORM
"""The longest that an honest hospital sends: 2^20 units."""

Vector = npt.NDArray[np.float64]


def ring(values: npt.ArrayLike) -> RingArray:
    return np.asarray(values, dtype=np.float64).astype(np.int64).astype(np.uint32)


def split(values: RingArray) -> list[RingArray]:
    first, second = random_ring(values.shape, RING), random_ring(values.shape, RING)
    return [first, second, values - first - second]


def sources() -> Callable[[PartyId], dict[PartyId, MaskSource]]:
    keys = {pair: secrets.token_bytes(32) for pair in ((0, 1), (0, 2), (1, 2))}
    return lambda me: {
        peer: PairKey(keys[min(me, peer), max(me, peer)]).for_computation("c")
        for peer in PARTIES
        if peer != me
    }


def verdicts_on(
    values: RingArray,
    bounds: Sequence[NormBound],
    *,
    turn: int = 0,
    tamper: Tamper = lambda sent: sent.message,
) -> tuple[tuple[bool, ...], Transcript]:
    """The check of `values` (h, SKETCH_LENGTH + metrics), which three parties share."""
    source, shares = sources(), split(values)
    programs = [check_norms(p, Roles.rotated(turn), source(p), shares[p], bounds) for p in PARTIES]
    verdicts, transcript = run_lockstep(programs, tamper=tamper)
    assert len(set(verdicts.values())) == 1
    verdict: tuple[bool, ...] = verdicts[PARTIES[0]]
    return verdict, transcript


def sketched(x: RingArray, seed: bytes) -> RingArray:
    """What three parties' sketches of their shares add up to."""
    return sum((sketch(share, seed) for share in split(x)), RING.zeros((SKETCH_LENGTH,)))


def verdicts_on_contributions(
    contributions: Sequence[RingArray], *, bound: NormBound = BOUND
) -> tuple[bool, ...]:
    """Coin, sketches and check, as a round does it."""
    seeds, _ = run_lockstep([toss_coin(p, "c") for p in PARTIES])
    assert len(set(seeds.values())) == 1
    values = np.stack([sketched(x, seeds[PARTIES[0]]) for x in contributions])
    return verdicts_on(values, [bound] * len(contributions))[0]


def sparse(*values: float) -> Vector:
    x = np.zeros(DIMENSION)
    x[np.random.default_rng(5).choice(DIMENSION, len(values), replace=False)] = values
    return x


def dense(length: float, *, seed: int = 1) -> Vector:
    x = np.random.default_rng(seed).normal(size=DIMENSION)
    return x * (length / np.linalg.norm(x))


HONEST_CONTRIBUTIONS = {
    "zero": np.zeros(DIMENSION),
    "dense, as long as allowed": dense(HONEST),
    "dense and short": dense(HONEST / 100),
    "heavy tails": dense(1) ** 3 * (HONEST / np.linalg.norm(dense(1) ** 3)),
    "one coordinate": sparse(HONEST),
    "one coordinate below zero": sparse(-HONEST),
    "two coordinates": sparse(HONEST / 2**0.5, HONEST / 2**0.5),
    "two of opposite signs": sparse(HONEST / 2**0.5, -HONEST / 2**0.5),
    "three coordinates": sparse(*[HONEST / 3**0.5] * 3),
    "all the same": np.full(DIMENSION, HONEST / DIMENSION**0.5),
}

ATTACKS = {
    "scaled by 2": dense(2 * HONEST),
    "scaled by 10": dense(10 * HONEST),
    "scaled by 1000": dense(1000 * HONEST),
    "scaled by -2": dense(-2 * HONEST),
    "one coordinate three times too long": sparse(3 * HONEST),
    "constant": np.full(DIMENSION, 3 * HONEST / DIMENSION**0.5),
    "random": np.random.default_rng(2).integers(0, 2**32, DIMENSION).astype(np.float64),
    "one of 2^31": sparse(2**31),
    "two of 2^31": sparse(2**31, 2**31),
    "four of 2^31": sparse(*[2**31] * 4),
    "all 2^31": np.full(DIMENSION, 2.0**31),
    "four of 2^30": sparse(*[2**30] * 4),
    "multiples of 2^30": np.random.default_rng(3).integers(0, 4, DIMENSION) * 2.0**30,
    "all 2^30": np.full(DIMENSION, 2.0**30),
    "all of magnitude 2^16, whose squares wrap": np.random.default_rng(4).choice([-1, 1], DIMENSION)
    * 2.0**16,
    "four of 2^16, larger": sparse(*[40 * 2**16] * 4),
    "moderate, and buckets wrap": np.random.default_rng(5).choice([-1, 1], DIMENSION) * 2.0**29,
    "just below what wraps in one bucket": sparse(2**32 - 2**21 - 1),
}


def test_honest_contributions_pass_whatever_their_shape() -> None:
    verdicts = verdicts_on_contributions([ring(x) for x in HONEST_CONTRIBUTIONS.values()])
    assert dict(zip(HONEST_CONTRIBUTIONS, verdicts, strict=True)) == dict.fromkeys(HONEST_CONTRIBUTIONS, True)


def test_attacks_are_refused() -> None:
    verdicts = verdicts_on_contributions([ring(x) for x in ATTACKS.values()])
    assert dict(zip(ATTACKS, verdicts, strict=True)) == dict.fromkeys(ATTACKS, False)


def test_two_coordinates_pass_though_they_meet_in_all_four_sketches() -> None:
    values = np.zeros((1, SKETCH_LENGTH))
    values[0, [3, BUCKETS + 8, 2 * BUCKETS, 4 * BUCKETS - 1]] = 2**0.5 * HONEST
    assert verdicts_on(ring(values), [BOUND])[0] == (True,)


@pytest.mark.slow
def test_no_honest_contribution_is_refused_in_a_thousand_rounds() -> None:
    """Three hospitals a round, each as long as allowed, over few or many coordinates, rounded."""
    rng, refused = np.random.default_rng(9), 0
    for _ in range(100):
        values = []
        for _ in range(10):
            seed = secrets.token_bytes(16)
            for few in (3, 40, DIMENSION):
                x = np.zeros(DIMENSION)
                x[:few] = rng.normal(size=few)
                rng.shuffle(x)
                values.append(sketched(ring(np.rint(x * (HONEST / np.linalg.norm(x)))), seed))
        refused += verdicts_on(np.stack(values), [BOUND] * len(values))[0].count(False)
    assert refused == 0


# ---------------------------------------------------------------- edges of the rules, on sketches themselves

EDGES = {
    "at the bucket's limit": ({5: BOUND.bucket}, True),
    "at its lower limit": ({5: -BOUND.bucket}, True),
    "at all limits of two buckets": ({5: BOUND.bucket, 3000: -BOUND.bucket}, True),
    "a resolution above": ({5: BOUND.bucket + 4097}, False),
    "a resolution below": ({5: -BOUND.bucket - 4097}, False),
    "half the ring away": ({5: 2**31}, False),
    "half the ring and the limit away": ({5: 2**31 - BOUND.bucket}, False),
    "half the ring, from below": ({5: BOUND.bucket - 2**31}, False),
    "just short of half the ring": ({5: 2**31 - 1}, False),
    "overshoots that add up to 0": (dict.fromkeys(range(4), BOUND.bucket + 2**30), False),
    "overshoots that add up to 0 below": (dict.fromkeys(range(4), -BOUND.bucket - 2**30), False),
    "squares that add up to 0 modulo 2^32": (dict.fromkeys(range(4096), 2**16), False),
    "every bucket at its limit": (dict.fromkeys(range(4096), BOUND.bucket), False),
    "metrics at their limits": ({4096: 0, 4097: METRIC_LIMIT - 1}, True),
    "a metric too large": ({4097: METRIC_LIMIT + 4096}, False),
    "a metric below zero": ({4096: -4097}, False),
    "a metric of half the ring": ({4097: 2**31}, False),
    "metrics that add up to 0": ({4096: 2**30, 4097: -(2**30)}, False),
}


@pytest.mark.parametrize("turn", range(3))
def test_each_rule_holds_to_its_edge_in_all_roles(turn: int) -> None:
    values = np.zeros((len(EDGES), SKETCH_LENGTH + 2))
    for row, (places, _) in zip(values, EDGES.values(), strict=True):
        for place, value in places.items():
            row[place] = value
    got, _ = verdicts_on(ring(values), [BOUND] * len(EDGES), turn=turn)
    assert dict(zip(EDGES, got, strict=True)) == {name: passes for name, (_, passes) in EDGES.items()}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    norm=st.integers(1 << 14, 23_700_000),
    factor=st.floats(0.9, 1.1),
    overshoot=st.integers(-5000, 5000),
)
def test_the_masked_check_agrees_with_the_cleartext_one(
    seed: int, norm: int, factor: float, overshoot: int
) -> None:
    """Sums of squares about their threshold, a bucket about its own, a metric about both of its."""
    bound, rng = NormBound(norm), np.random.default_rng(seed)
    values = np.zeros((4, SKETCH_LENGTH + 1))
    values[0, :SKETCH_LENGTH] = rng.normal(size=SKETCH_LENGTH)
    values[0] *= factor * bound.square**0.5 / np.linalg.norm(values[0])
    values[1, rng.integers(SKETCH_LENGTH)] = rng.choice([-1, 1]) * (bound.bucket + overshoot)
    values[2, -1], values[3, -1] = overshoot, METRIC_LIMIT + overshoot
    encoded = ring(values)
    got, _ = verdicts_on(encoded, [bound] * 4, turn=seed % 3)
    strict, tolerant = (
        cleartext_check(encoded, [bound] * 4, metric_limit=METRIC_LIMIT, resolution=resolution)
        for resolution in (False, True)
    )
    assert all(g >= s for g, s in zip(got, strict, strict=True))
    assert all(g <= t for g, t in zip(got, tolerant, strict=True))


def test_hospitals_of_different_weights_are_held_to_their_own_bounds() -> None:
    weights = [Fraction(1, 1000), Fraction(1, 10), Fraction(899, 1000)]
    bounds = [NormBound.of(max_norm=MAX_NORM_UNITS - 1, weight=w, length=DIMENSION) for w in weights]
    x = np.zeros((3, SKETCH_LENGTH))
    x[:, 7] = [bound.norm for bound in bounds]
    assert verdicts_on(ring(x), bounds)[0] == (True, True, True)
    assert verdicts_on(ring(x[::-1]), bounds)[0] == (False, True, True)  # the middle one is its own


# ---------------------------------------------------------------- cost, coin, and what is said


@pytest.mark.parametrize(("contributions", "metrics"), [(1, 0), (3, 74), (9, 1)])
@pytest.mark.parametrize("turn", range(3))
def test_a_check_costs_what_it_declares(contributions: int, metrics: int, turn: int) -> None:
    values, roles = RING.zeros((contributions, SKETCH_LENGTH + metrics)), Roles.rotated(turn)
    _, transcript = verdicts_on(values, [BOUND] * contributions, turn=turn)
    cost = declared_cost(check_norms)(contributions, metrics)
    assert transcript.rounds[roles.first] == cost.rounds
    assert transcript.bytes_sent(roles.first, roles.second) == cost.online_bytes
    assert transcript.bytes_sent(roles.second, roles.first) == cost.online_bytes
    assert transcript.bytes_sent(roles.dealer, roles.second) == cost.dealt_bytes
    assert transcript.bytes_sent(roles.dealer, roles.first) == 0
    for evaluator in (roles.first, roles.second):
        assert (
            transcript.bytes_sent(evaluator, roles.dealer) == contributions
        )  # the verdicts, and nothing else


def test_what_is_said_of_a_contribution_looks_the_same_whatever_it_holds() -> None:
    """Byte frequencies of every message but the verdicts, over 14 equal contributions, honest or all 2^31."""
    for value in (0, 2**31):
        values = ring(np.full((14, SKETCH_LENGTH + 74), value))
        _, transcript = verdicts_on(values, [BOUND] * 14)
        for sent in transcript.messages:
            data = np.concatenate([a.reshape(-1).view(np.uint8) for a in sent.message.values()])
            if sent.label == "check/told" or len(data) < 2560:
                continue
            expected = len(data) / 256
            chi_square = ((np.bincount(data, minlength=256) - expected) ** 2 / expected).sum()
            assert chi_square < 400, sent.label  # 255 degrees of freedom: p < 1e-8 beyond 390


def test_a_coin_is_the_same_everywhere_and_new_every_time() -> None:
    first, transcript = run_lockstep([toss_coin(p, "a") for p in PARTIES])
    again, _ = run_lockstep([toss_coin(p, "a") for p in PARTIES])
    assert len(set(first.values())) == len(set(again.values())) == 1
    assert first != again
    assert transcript.rounds == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("sender", PARTIES)
def test_every_party_decides_the_coin(sender: PartyId) -> None:
    """Whoever's message is changed on its way to one receiver gives that one another coin."""

    def tamper(sent: Sent) -> Message:
        if (sent.sender, sent.receiver) == (sender, (sender + 1) % 3):
            return {"coin": sent.message["coin"] ^ np.uint8(1)}
        return sent.message

    seeds, _ = run_lockstep([toss_coin(p, "a") for p in PARTIES], tamper=tamper)
    assert len(set(seeds.values())) == 2


def test_a_coin_belongs_to_its_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_check.secrets, "token_bytes", bytes)
    seeds = [run_lockstep([toss_coin(p, name) for p in PARTIES])[0][PARTIES[0]] for name in ("a", "b")]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize(("told", "rule"), [(0, "do not say the same"), (7, "do not say the same")])
def test_evaluators_that_say_different_things_end_the_check(told: int, rule: str) -> None:
    def tamper(sent: Sent) -> Message:
        if sent.label == "check/told" and sent.sender == 1:
            return {"accepted": np.full(1, told, np.uint8)}
        return sent.message

    with pytest.raises(PeerViolation, match=rule):
        verdicts_on(RING.zeros((1, SKETCH_LENGTH)), [BOUND], tamper=tamper)


def test_a_verdict_that_is_no_bit_ends_the_check() -> None:
    def tamper(sent: Sent) -> Message:
        if sent.label == "check/reveal" and sent.sender == 1:
            return {"accepted": sent.message["accepted"] + np.uint32(5)}
        return sent.message

    with pytest.raises(PeerViolation, match="neither 0 nor 1"):
        verdicts_on(RING.zeros((1, SKETCH_LENGTH)), [BOUND], tamper=tamper)


@pytest.mark.parametrize(
    ("shape", "bounds"), [((2, SKETCH_LENGTH), 1), ((1, SKETCH_LENGTH - 1), 1), ((0, 4096), 0)]
)
def test_a_check_of_the_wrong_shape_is_refused(shape: tuple[int, int], bounds: int) -> None:
    with pytest.raises(InvalidInput):
        next(
            check_norms(
                PARTIES[0], Roles.rotated(0), sources()(PARTIES[0]), RING.zeros(shape), [BOUND] * bounds
            )
        )


# ---------------------------------------------------------------- the sketch


@settings(max_examples=20, deadline=None)
@given(
    length=st.sampled_from([1, 2, 17, 5000, (1 << 15) - 1, 1 << 15, (1 << 15) + 1]),
    cut=st.floats(0, 1),
    seed=st.binary(min_size=16, max_size=16),
)
def test_a_sketch_equals_its_reference_in_whatever_parts_it_comes(
    length: int, cut: float, seed: bytes
) -> None:
    shares, total = random_ring((2, length), RING), random_ring((length,), RING)
    before, half = total.copy(), int(length * cut)
    running = RunningSketches(seed, count=2)
    running.add(list(shares[:, :half]), total=total[:half])
    running.add(list(shares[:, half:]), total=total[half:])
    words = Prg(seed).array((length,), "<u8")
    for share, got in zip(shares, running.buckets(), strict=True):
        want = reference.sketch(share, words, sketches=SKETCHES, buckets=BUCKETS)
        assert (got == want).all()
        assert (sketch(share, seed) == want).all()
    assert (total == before + shares[0] + shares[1]).all()


def test_vectors_of_different_lengths_are_not_sketched_side_by_side() -> None:
    with pytest.raises(InvalidInput, match="side by side"):
        RunningSketches(bytes(16), count=2).add([RING.zeros((5,)), RING.zeros((6,))])


def test_sketches_of_shares_add_up_to_the_sketch() -> None:
    x, seed = random_ring((70_000,), RING), secrets.token_bytes(16)
    assert (sketched(x, seed) == sketch(x, seed)).all()


def test_squared_buckets_estimate_the_norm_to_their_declared_deviation() -> None:
    """Relative deviation sqrt(2 / 4096) = 0.022; the mean of 200 estimates is ten times as good."""
    x = ring(np.rint(dense(HONEST)))
    exact = SKETCHES * float((x.view(np.int32).astype(np.float64) ** 2).sum())
    sketches = [sketch(x, secrets.token_bytes(16)).view(np.int32).astype(np.float64) for _ in range(200)]
    ratios = np.array([(s**2).sum() / exact for s in sketches])
    assert abs(ratios.mean() - 1) < 0.01
    assert 0.015 < ratios.std() < 0.03


def test_only_vectors_of_the_32_bit_ring_are_sketched() -> None:
    for wrong in (Ring.RING_64.zeros((5,)), RING.zeros((5, 1))):
        with pytest.raises(InvalidInput):
            sketch(wrong, bytes(16))
