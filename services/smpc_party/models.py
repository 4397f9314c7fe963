"""The models that this party can evaluate: registered, dealt, and with a plan."""

from __future__ import annotations

from collections import OrderedDict

from libs.core.errors import FailedPrecondition
from libs.secure_nn.plan import Plan
from services.smpc_party.masked_models import ModelShare
from services.smpc_party.ports import ModelRecord, Rounds

MAX_PARSED = 16
"""Plans that are kept parsed."""


class EvaluableModels:
    """Reads the index. Its methods block; call them from a thread."""

    def __init__(self, index: Rounds, *, max_batch: int) -> None:
        self._index, self.max_batch = index, max_batch
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    def ids(self) -> list[str]:
        """All of them, the newest last."""
        return self._index.evaluable_models()

    def get(self, model_id: str) -> ModelShare:
        """One of them. Raises `NotFound`, and `FailedPrecondition` for a model that cannot be evaluated."""
        return self.share_of(self._index.model(model_id))

    def record(self, model_id: str) -> ModelRecord:
        """What is known of a model, whether it can be evaluated or not. Raises `NotFound`."""
        return self._index.model(model_id)

    def share_of(self, record: ModelRecord) -> ModelShare:
        """The model of a record. Raises `FailedPrecondition` when it cannot be evaluated."""
        model_id = record.spec.model_id
        if record.share is None:
            raise FailedPrecondition(f"Model {model_id} was not dealt to this party yet. Deal it first.")
        if not record.spec.plan:
            raise FailedPrecondition(
                f"Model {model_id} is a training version without a compiled plan. Ask the released model."
            )
        plan = self._plans.get(model_id)
        if plan is None:
            plan = self._plans[model_id] = Plan.from_json(record.spec.plan)
            while len(self._plans) > MAX_PARSED:
                self._plans.popitem(last=False)
        return ModelShare(model_id, plan, record.share)
