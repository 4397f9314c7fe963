"""The models that this party can evaluate: registered, dealt, and with a plan."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from libs.core.errors import FailedPrecondition, NotFound
from libs.mpc.ring import RingArray
from libs.runtime.logging import get_logger
from libs.secure_nn.plan import Plan
from services.smpc_party.domain import ModelSpec
from services.smpc_party.masked_models import ModelShare
from services.smpc_party.ports import Home, ModelRecord, Rounds, Shares

log = get_logger(__name__)

MAX_PARSED = 16
"""Plans that are kept parsed."""


class EvaluableModels:
    """Reads the index; what a replica outside cell 0 lacks, it fetches from home, once."""

    def __init__(self, index: Rounds, shares: Shares, *, home: Home | None, max_batch: int) -> None:
        self._index, self._shares, self._home, self.max_batch = index, shares, home, max_batch
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._fetching: dict[str, asyncio.Lock] = {}

    def ids(self) -> list[str]:
        """All that are here, the newest last. Blocks."""
        return self._index.evaluable_models()

    def record(self, model_id: str) -> ModelRecord:
        """What is known here of a model, whether it can be evaluated or not. Blocks. Raises `NotFound`."""
        return self._index.model(model_id)

    def handed_out(self, model_id: str) -> None:
        """Enter into the audit trail that the caller gets this party's share of the model. Blocks."""
        self._index.share_fetched(f"model {model_id}")

    async def get(self, model_id: str) -> tuple[ModelRecord, ModelShare]:
        """A model that can be evaluated, fetched if need be.

        Raises `NotFound`, and `FailedPrecondition` for a model that cannot be evaluated.
        """
        try:
            return await asyncio.to_thread(self._get, model_id)
        except (NotFound, FailedPrecondition):
            if self._home is None:
                raise
        async with self._fetching.setdefault(model_id, asyncio.Lock()):
            try:
                return await asyncio.to_thread(self._get, model_id)
            except (NotFound, FailedPrecondition):
                fetched = await self._home.fetch(model_id)
                await asyncio.to_thread(self._keep, fetched.spec, fetched.upload_id, fetched.share)
        self._fetching.pop(model_id, None)
        log.info("model_fetched", model=model_id)
        return await asyncio.to_thread(self._get, model_id)

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

    def _get(self, model_id: str) -> tuple[ModelRecord, ModelShare]:
        record = self._index.model(model_id)
        return record, self.share_of(record)

    def _keep(self, spec: ModelSpec, upload_id: str, share: RingArray) -> None:
        self._index.add_model(spec)
        stored = self._shares.save(share, context=spec.context, ring=spec.ring)
        if not self._index.put_model_share(spec.model_id, upload_id, stored):
            self._shares.delete([stored])
