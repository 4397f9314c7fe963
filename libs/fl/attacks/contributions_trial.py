"""A federated study with one malicious hospital, with and without the check of norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from libs.core.errors import InvalidInput
from libs.data.imageset import POSITIVE, ImageSet
from libs.fl.attacks.contributions import Attack, Past, with_trigger
from libs.fl.evaluation import auc, predict_probabilities
from libs.fl.simulate import Contribution, SimulatedRound, simulate
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import RingArray

HEADROOM = 1.5
"""How far above the honest hospitals' longest update the plan's bound lies."""


@dataclass(frozen=True)
class Result:
    """One study. `auc` is None when the model's answers are no numbers any more, or none of the rounds could
    be held; `triggered` is the part of the ill test images that count as healthy once they are marked, of
    those that count as ill without the mark. `refused_rounds` counts rounds without the malicious hospital;
    `honest_refused` rounds that left out somebody else.
    """

    attack: str
    checked: bool
    auc: float | None
    triggered: float | None
    rounds: int
    refused_rounds: int
    honest_refused: int


def honest_norms(plan: TrainingPlan, hospitals: Mapping[str, ImageSet]) -> tuple[float, float]:
    """(longest update of the first round, longest of all later ones) of a study without attackers."""
    longest = [0.0, 0.0]

    def listen(contribution: Contribution) -> RingArray:
        norm = float(np.linalg.norm(contribution.trained.update.astype(np.float64)))
        later = contribution.round_number > 1
        longest[later] = max(longest[later], norm)
        return contribution.encoded

    simulate(plan, hospitals, contribute=listen, check=False)
    return longest[0], longest[1] or longest[0]


def with_check(plan: TrainingPlan, norms: tuple[float, float]) -> TrainingPlan:
    """The plan with a bound of HEADROOM times these honest norms, as a scientist would set it from a
    pilot.
    """
    first, later = (HEADROOM * norm for norm in norms)
    check = {"max_norm": later, "first_max_norm": max(first, later)}
    return TrainingPlan.checked(plan.model_dump() | {"contribution_check": check})


def run(
    plan: TrainingPlan,
    hospitals: Mapping[str, ImageSet],
    test: ImageSet,
    *,
    attack: Attack | None,
    checked: bool,
    on_round: Callable[[SimulatedRound], None] | None = None,
) -> Result:
    """One study whose last hospital does `attack`; all are honest without one. Raises what `simulate`
    does.
    """
    villain, past = list(hospitals)[-1], Past()
    data = dict(hospitals)
    if attack is not None and attack.poison is not None:
        data[villain] = attack.poison(data[villain])

    def send(contribution: Contribution) -> RingArray:
        if attack is None or attack.forge is None or contribution.hospital != villain:
            return contribution.encoded
        return attack.forge(contribution, past)

    seen = list[SimulatedRound]()

    def listen(simulated: SimulatedRound) -> None:
        seen.append(simulated)
        if on_round is not None:
            on_round(simulated)

    module: nn.Module | None = None
    try:
        study = simulate(plan, data, contribute=send, check=checked, on_round=listen)
        module = study.module()
    except InvalidInput:
        # Honest hospitals cannot go on from a ruined model: training diverges or leaves the ring.
        if checked or attack is None:
            raise
    area, triggered = (None, None) if module is None else _judged(module, test)
    return Result(
        attack="none" if attack is None else attack.name,
        checked=checked,
        auc=area,
        triggered=triggered,
        rounds=len(seen),
        refused_rounds=sum(villain in simulated.refused for simulated in seen),
        honest_refused=sum(bool(simulated.refused - {villain}) for simulated in seen),
    )


def _judged(module: nn.Module, test: ImageSet) -> tuple[float | None, float | None]:
    """(AUC, success of the trigger); None where there is no number."""
    probabilities = predict_probabilities(module, test.images)
    if not np.isfinite(probabilities).all():
        return None, None
    found = (test.labels == POSITIVE) & (probabilities >= 0.5)
    if not found.any():
        return auc(probabilities, test.labels), None
    marked = predict_probabilities(module, with_trigger(test.images[found]))
    return auc(probabilities, test.labels), float((marked < 0.5).mean())


def change(result: Result, clean: Result) -> float | None:
    """AUC beyond the clean run's; None where one of them has none."""
    if result.auc is None or clean.auc is None:
        return None
    return result.auc - clean.auc


def names(count: int) -> Sequence[str]:
    """Hospitals of a trial; the last is the malicious one."""
    return [f"hospital-{i}" for i in range(1, count + 1)]


@dataclass(frozen=True)
class Pair:
    """One attack, or none, without the check and with it."""

    attack: Attack | None
    unchecked: Result
    checked: Result


def compare(
    plan: TrainingPlan,
    hospitals: Mapping[str, ImageSet],
    test: ImageSet,
    *,
    attacks: Sequence[Attack],
    on_progress: Callable[[str, float], None],
) -> list[Pair]:
    """The clean study, then each attack. `on_progress` hears its name and the fraction done.

    A study in which the check refused nobody is the study without it, to the bit, and is not held again.
    """
    pairs = []
    for attack in (None, *attacks):
        name = "no attack" if attack is None else attack.name
        held = 0

        def tell(_: SimulatedRound, name: str = name) -> None:
            nonlocal held
            held += 1
            on_progress(name, min(0.99, held / (2 * plan.rounds)))

        checked = run(plan, hospitals, test, attack=attack, checked=True, on_round=tell)
        if checked.refused_rounds or checked.honest_refused:
            unchecked = run(plan, hospitals, test, attack=attack, checked=False, on_round=tell)
        else:
            unchecked = replace(checked, checked=False)
        on_progress(name, 1.0)
        pairs.append(Pair(attack, unchecked, checked))
    return pairs
