"""Where a prediction's time and bytes go, step by step.

The three programs run in one process and one thread, in lockstep, and the clock of the party whose turn it
is runs: what is timed is each party's own work, undisturbed, without transport and without waiting. What a
step sends and how many rounds it takes is what it declares, which is what it does (`costs_as_declared`).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import torch

from libs.cli.bench.workload import Workload
from libs.core.ids import PARTIES, PartyId
from libs.mpc.lockstep import run_lockstep
from libs.mpc.prg import MaskSource, PairKey, random_ring
from libs.mpc.program import Program
from libs.mpc.schemes.masked.roles import Dealer, Evaluator, Roles
from libs.secure_nn import steps as s
from libs.secure_nn.client import mask_input
from libs.secure_nn.predict import deal_program, evaluate_program, prepare_program
from libs.secure_nn.secure_model import mask_model_program

T = TypeVar("T")
REPEAT = 3
ROLES = Roles.rotated(0)
_EVALUATORS = (ROLES.first, ROLES.second)


@dataclass(frozen=True)
class StepProfile:
    """One step. Seconds: of the dealer, and of the slower evaluator. Bytes: each way, and from the dealer."""

    name: str
    kind: str
    deal_s: float
    prepare_s: float
    online_s: float
    rounds: int
    online_bytes: int
    dealt_bytes: int

    @property
    def layer(self) -> str:
        """The layer of the network that the compiler made this step for."""
        return self.name.partition(".")[0]


class StepClock:
    """Adds up one party's seconds by step; it stands while somebody else works."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._step = ""
        self._since_s = 0.0

    def resume(self) -> None:
        """This party's turn begins."""
        self._since_s = time.perf_counter()

    def pause(self) -> None:
        """This party's turn ends."""
        self.seconds[self._step] += time.perf_counter() - self._since_s

    def enter(self, step: s.Step) -> None:
        """From now on it works on this step."""
        self.pause()
        self._step = step.name
        self.resume()


def timed(program: Program[T], clock: StepClock) -> Program[T]:
    """The same program; the clock runs while it computes."""
    inbox: Any = None
    while True:
        clock.resume()
        try:
            step = program.send(inbox)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            clock.pause()
        inbox = yield step


def profile(workload: Workload, *, threads: int) -> list[StepProfile]:
    """Every step of the plan, in order; seconds are medians over a few runs, after one that warms up."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parties = _Parties(workload)
        runs = [parties.run(f"profile-{number}") for number in range(REPEAT + 1)][1:]
    finally:
        torch.set_num_threads(before)
    plan = workload.plan
    profiles = []
    for step in plan.steps:
        cost = step.cost(
            inputs=step.specs(plan.values),
            output=plan.values[step.output],
            ring=plan.ring,
            batch=workload.batch,
        )
        deal_s, prepare_s, online_s = (median(run[phase][step.name] for run in runs) for phase in range(3))
        profiles.append(
            StepProfile(
                name=step.name,
                kind=step.kind,
                deal_s=deal_s,
                prepare_s=prepare_s,
                online_s=online_s,
                rounds=cost.rounds,
                online_bytes=cost.online_bytes,
                dealt_bytes=cost.dealt_bytes,
            )
        )
    return profiles


class _Parties:
    """Three parties in this process, with the model masked once."""

    def __init__(self, workload: Workload) -> None:
        self._workload, plan = workload, workload.plan
        keys = {frozenset(pair): secrets.token_bytes(32) for pair in ((0, 1), (0, 2), (1, 2))}
        self._keys = {
            me: {peer: PairKey(keys[frozenset((me, peer))]) for peer in PARTIES if peer != me}
            for me in PARTIES
        }
        first, second = (random_ring(workload.parameters.shape, plan.ring) for _ in range(2))
        shares = (first, second, workload.parameters - first - second)
        programs = [
            mask_model_program(party, ROLES, self._masks(party, "model"), plan, shares[party])
            for party in PARTIES
        ]
        self._models, _ = run_lockstep(programs)

    def run(self, computation: str) -> tuple[Mapping[str, float], ...]:
        """One prediction: seconds by step of dealing, of preparing, and of evaluating."""
        plan, batch = self._workload.plan, self._workload.batch
        masks = {me: self._masks(me, computation) for me in PARTIES}
        mine = masks[ROLES.dealer]
        evaluators = {me: Evaluator.of(me, ROLES, masks[me][ROLES.dealer]) for me in _EVALUATORS}
        offline = {me: StepClock() for me in PARTIES}
        dealing = deal_program(
            plan,
            self._models[ROLES.dealer],
            Dealer(mine[ROLES.first], mine[ROLES.second]),
            ROLES,
            batch=batch,
            on_step=offline[ROLES.dealer].enter,
        )
        programs: dict[PartyId, Program[Any]] = {ROLES.dealer: timed(dealing, offline[ROLES.dealer])}
        for me, evaluator in evaluators.items():
            preparing = prepare_program(
                plan, self._models[me], evaluator, batch=batch, on_step=offline[me].enter
            )
            programs[me] = timed(preparing, offline[me])
        materials, _ = run_lockstep(programs)
        masked = mask_input(plan, self._workload.inputs, *(materials[me].input_seed for me in _EVALUATORS))
        digest = hashlib.sha256(masked.tobytes()).digest()
        online = {me: StepClock() for me in _EVALUATORS}
        run_lockstep(
            {
                me: timed(
                    evaluate_program(
                        plan,
                        self._models[me],
                        evaluator,
                        materials[me],
                        masked,
                        digest=digest,
                        computation=computation,
                        on_step=online[me].enter,
                    ),
                    online[me],
                )
                for me, evaluator in evaluators.items()
            }
        )
        return offline[ROLES.dealer].seconds, _slower(offline), _slower(online)

    def _masks(self, me: PartyId, computation: str) -> dict[PartyId, MaskSource]:
        return {peer: key.for_computation(computation) for peer, key in self._keys[me].items()}


def _slower(clocks: Mapping[PartyId, StepClock]) -> Mapping[str, float]:
    """Step by step the larger of both evaluators' seconds; 0 for a step that took none."""
    names = {name for me in _EVALUATORS for name in clocks[me].seconds}
    return defaultdict(float, {name: max(clocks[me].seconds[name] for me in _EVALUATORS) for name in names})
