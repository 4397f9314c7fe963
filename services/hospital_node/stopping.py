"""Early stopping at the hospital: it reads the summed metrics, which the coordinator cannot, and judges them.

Metrics of a round that is over never change, so they are fetched once while the node runs.
"""

from __future__ import annotations

from libs.core.errors import FailedPrecondition
from libs.fl.early_stopping import Verdict, judge
from libs.fl.metrics import RoundMetrics
from libs.fl.strategy_parameters import EarlyStopping
from libs.fl.training_plan import TrainingPlan
from services.hospital_node.domain import Order, TaskKind
from services.hospital_node.ports import Parties, StudyJob

_GO_ON = Verdict(0, stop=False)


class Stopping:
    """What the plan's rule says at an order. Every hospital comes to the same."""

    def __init__(self, parties: Parties) -> None:
        self._parties = parties
        self._metrics: dict[str, list[RoundMetrics]] = {}

    def forget(self, study_id: str) -> None:
        """The study ended."""
        self._metrics.pop(study_id, None)

    async def verdict(self, order: Order, job: StudyJob) -> Verdict:
        """Whether to train the order's round at all.

        For the orders after training: raises FailedPrecondition when they are about another version than the
        one that the plan's rounds and its rule end with. Errors as `Parties.metrics`.
        """
        plan = TrainingPlan.from_json(job.training_plan)
        rule = plan.early_stopping
        if order.key.kind is TaskKind.TRAIN:
            if rule is None:
                return _GO_ON
            return judge(rule, await self._up_to(order.key.study_id, order.key.round - 1))
        if job.base_round != plan.rounds and (
            rule is None or job.base_round != await self._best(order.key.study_id, plan, rule)
        ):
            raise FailedPrecondition(
                f"The order is about version {job.base_round} of the model, which is not the one that the "
                "approved plan ends with."
            )
        return _GO_ON

    async def _best(self, study_id: str, plan: TrainingPlan, rule: EarlyStopping) -> int:
        """The best round when training stops; 0 when it does not."""
        for rounds in range(1, plan.rounds):
            verdict = judge(rule, await self._up_to(study_id, rounds))
            if verdict.stop:
                return verdict.best_round
        return 0

    async def _up_to(self, study_id: str, rounds: int) -> list[RoundMetrics]:
        known = self._metrics.setdefault(study_id, [])
        while len(known) < rounds:
            known.append(await self._parties.metrics(study_id, round_number=len(known) + 1))
        return known[:rounds]
