"""A whole federated study in one process: the same versions, bit for bit, as hospitals and parties make.

Hospitals do what their nodes' workers do (`hospital_round.py`); the sum is the ring's. Sharing, which changes
no bit, is left out, and so is transport. When hospitals are refused, the parties rescale under shares with
an error of up to one unit in the last place, and here it is rounded in the clear: equal within one unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from torch import nn

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES
from libs.data.imageset import ImageSet
from libs.fl.early_stopping import judge
from libs.fl.hospital_round import Trained, encode_contribution, train_round
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics, decode_metrics
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.round_rules import max_norm_of, noise_std_of
from libs.fl.strategies.registry import strategy_of
from libs.fl.strategies.sampling import sampled
from libs.fl.strategies.strategy import Opened, OwnState, rescaling
from libs.fl.sum_noise import noise_part
from libs.fl.training_plan import TrainingPlan
from libs.fl.vectorise import load_state_vector
from libs.fl.versions import Reader, first_module, first_version
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.additive.rescale import PublicRatio


@dataclass(frozen=True)
class Contribution:
    """What one hospital is about to send in a round. `encoded` is [weighted update | metrics]."""

    hospital: str
    round_number: int
    weight: Fraction
    opened: Opened
    trained: Trained
    encoded: RingArray


@dataclass(frozen=True)
class SimulatedRound:
    """What is known after a round. `metrics` are the sum over those that counted."""

    number: int
    version: RingArray
    metrics: RoundMetrics
    participants: frozenset[str]
    refused: frozenset[str]


@dataclass(frozen=True)
class Simulation:
    """A finished study. `versions[t]` is the one after round t, 0 the first.

    `final_round` is the one whose version is released: the last, or the best when training stopped early.
    """

    plan: TrainingPlan
    versions: tuple[RingArray, ...]
    rounds: tuple[SimulatedRound, ...]
    final_round: int
    stopped_early: bool = False

    @property
    def metrics(self) -> tuple[RoundMetrics, ...]:
        """Of each round, summed over the hospitals that counted."""
        return tuple(simulated.metrics for simulated in self.rounds)

    @property
    def refused(self) -> tuple[frozenset[str], ...]:
        """Of each round, the hospitals whose contributions broke the plan's check."""
        return tuple(simulated.refused for simulated in self.rounds)

    def module(self, round_number: int | None = None) -> nn.Module:
        """The model after a round; the released one without a number."""
        last = self.final_round if round_number is None else round_number
        reader = Reader(self.plan)
        for number, version in enumerate(self.versions[: last + 1]):
            reader.read(version, round_number=number)
        module = first_module(self.plan)
        load_state_vector(module, reader.opened.weights)
        return module


Tampering = Callable[[Contribution], RingArray]
"""What a hospital sends instead of `encoded`, of the same shape: an attack, or `encoded` itself."""


@dataclass
class _Federation:
    plan: TrainingPlan
    hospitals: Mapping[str, ImageSet]
    tamper: Tampering | None
    check: bool
    randomness: Callable[[str, int], PrivateRandomness] | None = None
    own: dict[str, OwnState] = field(default_factory=dict)


def simulate(
    plan: TrainingPlan,
    hospitals: Mapping[str, ImageSet],
    *,
    seed: int | None = None,
    on_round: Callable[[SimulatedRound], None] | None = None,
    contribute: Tampering | None = None,
    check: bool = True,
    randomness: Callable[[str, int], PrivateRandomness] | None = None,
) -> Simulation:
    """Hold the study. `seed` replaces the plan's. `contribute` may replace what hospitals send. `randomness`
    gives the noise of a hospital's round in a plan with privacy, which is else drawn from the system.

    With `check`, contributions that break the plan's `contribution_check` are left out, as the parties would
    leave them out. Raises InvalidInput when fewer than the quorum are left in a round; other errors as
    `train_round`.
    """
    if seed is not None:
        plan = plan.model_copy(update={"seed": seed})
    if len(hospitals) < plan.quorum:
        raise InvalidInput(f"The plan needs {plan.quorum} hospitals, and there are {len(hospitals)}.")
    federation = _Federation(plan, hospitals, contribute, check, randomness)
    reader, versions, rounds = Reader(plan), [first_version(plan)], list[SimulatedRound]()
    reader.read(versions[0], round_number=0)
    for number in range(1, plan.rounds + 1):
        if plan.early_stopping is not None:
            verdict = judge(plan.early_stopping, [simulated.metrics for simulated in rounds])
            if verdict.stop:
                return Simulation(
                    plan, tuple(versions), tuple(rounds), verdict.best_round, stopped_early=True
                )
        simulated = _round(federation, reader.opened, versions[-1], number)
        versions.append(simulated.version)
        rounds.append(simulated)
        reader.read(simulated.version, round_number=number)
        if on_round is not None:
            on_round(simulated)
    return Simulation(plan, tuple(versions), tuple(rounds), plan.rounds)


def _round(federation: _Federation, opened: Opened, version: RingArray, number: int) -> SimulatedRound:
    plan, hospitals = federation.plan, federation.hospitals
    chosen = sampled(
        hospitals.keys(),
        fraction=plan.client_fraction,
        quorum=plan.quorum,
        seed=plan.seed,
        round_number=number,
    )
    weights = strategy_of(plan).weights({name: len(hospitals[name]) for name in hospitals if name in chosen})
    sent, own = dict[str, RingArray](), dict[str, OwnState]()
    for name, weight in weights.items():
        trained = train_round(
            plan,
            hospitals[name],
            hospital=name,
            round_number=number,
            opened=opened,
            own=federation.own.get(name),
            randomness=None if federation.randomness is None else federation.randomness(name, number),
        )
        encoded = encode_contribution(plan, trained, weight=weight)
        if federation.tamper is not None:
            encoded = federation.tamper(Contribution(name, number, weight, opened, trained, encoded))
        sent[name] = encoded
        if trained.own is not None:
            own[name] = trained.own
    limit = max_norm_of(plan, round_number=number) if federation.check else 0
    refused = {name for name in sent if limit and _too_long(sent[name], weights[name], max_norm=limit)}
    counted = sent.keys() - refused
    if len(counted) < plan.quorum:
        raise InvalidInput(
            f"Only {len(counted)} contributions of round {number} passed the plan's check, which needs "
            f"{plan.quorum}."
        )
    # A hospital goes on from the last of its rounds that counted.
    federation.own.update({name: own[name] for name in counted if name in own})
    update, metrics = added(
        [sent[name] for name in sent if name in counted],
        weights,
        survivors=counted,
        noise_std=noise_std_of(plan),
    )
    return SimulatedRound(number, version + update, metrics, chosen, frozenset(refused))


def added(
    contributions: Collection[RingArray],
    weights: Mapping[str, Fraction],
    *,
    survivors: Collection[str],
    noise_std: int = 0,
) -> tuple[RingArray, RoundMetrics]:
    """What the parties make of contributions: (mean update in Z_2^32, summed metrics), with fresh noise."""
    total = Ring.RING_32.zeros(next(iter(contributions)).shape)
    for contribution in contributions:
        total += contribution
    update, metrics = total[:-METRICS_LENGTH], total[-METRICS_LENGTH:]
    for _ in PARTIES:
        update = update + noise_part(len(update), std=noise_std, ring=Ring.RING_32)
    ratio = rescaling(weights, survivors)
    if ratio != 1:
        used = PublicRatio.nearest(ratio).value
        update = np.rint(update.view(np.int32) * float(used)).astype(np.int64).astype(np.uint32)
    return update, decode_metrics(metrics)


def _too_long(contribution: RingArray, weight: Fraction, *, max_norm: int) -> bool:
    """The parties' check in the clear, at the length up to which theirs accepts for certain.

    Honest updates have at most weight * max_norm and half a unit of rounding a coordinate; the parties
    estimate lengths from sketches, so their border is a factor of sqrt(2) above it.
    """
    update = contribution[:-METRICS_LENGTH].view(np.int32).astype(np.float64)
    return float(np.linalg.norm(update)) > math.sqrt(2) * float(weight) * max_norm + math.sqrt(update.size)
