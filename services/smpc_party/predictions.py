"""Encrypted predictions at one party, from the coordinator's assignment to the client's share.

Each prediction is one task: join the peers, get the masked model, deal or prepare, and, as an evaluator,
wait for the client's input and evaluate. Whatever goes wrong on the way burns the prediction here and, by
the session's abort, at the peers; nothing of it is ever used again.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from libs.core.errors import (
    AlreadyExists,
    Bug,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TooLarge,
    TrefoilError,
    Unavailable,
)
from libs.core.ids import PartyId
from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked.roles import Dealer, Evaluator
from libs.rpc.computation import Session
from libs.rpc.identity import Identity
from libs.rpc.run_party import run_party
from libs.runtime.logging import get_logger
from libs.secure_nn.plan import Plan
from libs.secure_nn.predict import Material, deal_program, evaluate_program, prepare_program
from services.smpc_party.domain import (
    PREDICTION_TABLE,
    PredictionEvent,
    PredictionSpec,
    PredictionState,
    move,
)
from services.smpc_party.limits import PredictionLimits, working_bytes
from services.smpc_party.masked_models import MaskedModels, ModelShare, dealer_part, evaluator_part
from services.smpc_party.ports import Peers, Rounds

log = get_logger(__name__)
T = TypeVar("T")

MAX_REMEMBERED = 1000
JOIN_TIMEOUT_S = 10.0
_SLACK_BYTES = 4096


@dataclass(frozen=True)
class MaskedInput:
    """What the client sent to this evaluator. Shape (batch, C, H, W)."""

    values: RingArray
    sha256: bytes


@dataclass(frozen=True)
class Answer:
    """This evaluator's share of the output, flat, and what it cost."""

    share: RingArray
    rounds: int
    sent_bytes_online: int
    online_s: float
    received_bytes_offline: int
    offline_s: float


class Prediction:
    """One prediction: its state, and what passes between its task and the client's stream."""

    def __init__(self, spec: PredictionSpec, plan: Plan) -> None:
        self.spec, self.plan = spec, plan
        self.client, self.working_bytes = spec.client, working_bytes(plan, batch=spec.batch)
        self.state = PredictionState.PREPARING
        self.claimed = False
        loop = asyncio.get_running_loop()
        self.input_seed: asyncio.Future[bytes] = loop.create_future()
        self.masked_input: asyncio.Future[MaskedInput] = loop.create_future()
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self.task: asyncio.Task[None] | None = None

    def move(self, event: PredictionEvent) -> None:
        """Take one step of the table."""
        self.state = move(PREDICTION_TABLE, self.state, event, what=f"Prediction {self.spec.computation_id}")

    def burn(self, error: TrefoilError) -> None:
        """End it with an error; whoever waits for it is told."""
        if self.state not in {PredictionState.FINISHED, PredictionState.BURNED}:
            self.move(PredictionEvent.BURN)
        for future in (self.input_seed, self.answer):
            if not future.done():
                future.set_exception(error)
                future.exception()  # retrieved; nobody may be waiting
        self.masked_input.cancel()

    async def unless_burned(self, awaitable: Awaitable[T]) -> T:
        """The result of `awaitable`, or this prediction's error if that comes first."""
        task: asyncio.Future[T] = asyncio.ensure_future(awaitable)
        either: list[asyncio.Future[Any]] = [task, self.answer]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.answer.result()
                raise Bug("A prediction was answered before its input was complete.")
            return task.result()
        finally:
            task.cancel()


class Predictions:
    """All predictions of this party."""

    def __init__(
        self,
        *,
        me: PartyId,
        models: Rounds,
        masked_models: MaskedModels,
        peers: Peers,
        online: Executor,
        offline: Executor,
        max_batch: int,
        limits: PredictionLimits,
        deadline_s: float,
    ) -> None:
        """`online` runs what a client waits for, `offline` the long work ahead of it."""
        self._me, self._models, self._masked_models, self._peers = me, models, masked_models, peers
        self._online, self._offline = online, offline
        self._max_batch, self._limits, self._deadline_s = max_batch, limits, deadline_s
        self._open: dict[str, Prediction] = {}
        self._ended: OrderedDict[str, TrefoilError | None] = OrderedDict()
        self._plans: dict[str, Plan] = {}

    async def open(self, spec: PredictionSpec) -> None:
        """Begin a prediction in the background. The same assignment again changes nothing.

        Raises `AlreadyExists` for a computation id that was used, `FailedPrecondition` for a model that
        cannot be evaluated, `TooLarge`, `InvalidInput`, `PermissionDenied`, `NotFound`, `Unavailable`.
        """
        self._check_new(spec)
        model = await asyncio.to_thread(self._model, spec)
        known = self._open.get(spec.computation_id)
        if known is not None and known.spec == spec:
            return
        self._check_new(spec)
        prediction = Prediction(spec, model.plan)
        self._limits.check_room(spec.client, prediction.working_bytes, self._open.values())
        self._open[spec.computation_id] = prediction
        prediction.task = asyncio.create_task(self._run(prediction, model))

    def claim(self, computation_id: str, client: Identity) -> Prediction:
        """The prediction that this client was assigned to, for its one stream."""
        prediction = self._open.get(computation_id)
        if prediction is None:
            error = self._ended.get(computation_id)
            raise error or NotFound(f"This party has no prediction {computation_id} in progress. Ask again.")
        if prediction.spec.client != client:
            raise PermissionDenied("This prediction was assigned to another client. Ask for one of your own.")
        if prediction.spec.is_dealer(self._me):
            raise FailedPrecondition(
                "This party deals in this prediction and must not see its input. "
                "Send it to the two evaluators."
            )
        if prediction.claimed:
            raise FailedPrecondition("This prediction has a client's stream already. Ask for another one.")
        prediction.claimed = True
        return prediction

    async def stop(self) -> None:
        """Burn everything in progress."""
        tasks = [p.task for p in self._open.values() if p.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check_new(self, spec: PredictionSpec) -> None:
        known = self._open.get(spec.computation_id)
        if (known is not None and known.spec != spec) or spec.computation_id in self._ended:
            raise AlreadyExists(
                f"Computation {spec.computation_id} was used before, and its masks must not be drawn again. "
                "Ask for a new one."
            )
        if not 1 <= spec.batch <= self._max_batch:
            raise TooLarge(f"Party {self._me} takes 1 to {self._max_batch} images at a time. Send fewer.")
        if not 0 < spec.deadline_s <= self._deadline_s:
            raise InvalidInput(f"The deadline of a prediction is at most {self._deadline_s:g} s.")

    def _model(self, spec: PredictionSpec) -> ModelShare:
        record = self._models.model(spec.model_id)
        if record.share is None:
            raise FailedPrecondition(f"Model {spec.model_id} was not dealt to this party yet. Deal it first.")
        if not record.spec.plan:
            raise FailedPrecondition(
                f"Model {spec.model_id} is a training version without a compiled plan. "
                "Ask the released model."
            )
        if record.spec.predictors and spec.client not in record.spec.predictors:
            raise PermissionDenied(
                f"{spec.client} may not ask model {spec.model_id}. Ask its owner for access."
            )
        plan = self._plans.get(spec.model_id)
        if plan is None:
            plan = self._plans[spec.model_id] = Plan.from_json(record.spec.plan)
        return ModelShare(spec.model_id, plan, record.share)

    # ---------------------------------------------------------------- the task of one prediction

    async def _run(self, prediction: Prediction, model: ModelShare) -> None:
        spec = prediction.spec
        error: TrefoilError | None = None
        try:
            async with asyncio.timeout(spec.deadline_s):
                async with await self._session(spec, model.plan) as session:
                    answer = await self._live(prediction, model, session)
            if answer is not None:
                prediction.move(PredictionEvent.FINISH)
                prediction.answer.set_result(answer)
        except TimeoutError:
            error = DeadlineExceeded(
                f"Prediction {spec.computation_id} was not finished within {spec.deadline_s:g} s. "
                "Its material was burned; ask again."
            )
        except TrefoilError as cause:
            error = cause
        except asyncio.CancelledError:
            error = Unavailable(f"Prediction {spec.computation_id} was cancelled. Ask again.")
            raise
        except Exception as cause:
            log.exception("prediction_crashed", computation=spec.computation_id)
            error = Bug(f"Prediction {spec.computation_id} failed: {type(cause).__name__}")
        finally:
            self._end(prediction, error)

    def _end(self, prediction: Prediction, error: TrefoilError | None) -> None:
        spec = prediction.spec
        self._open.pop(spec.computation_id, None)
        self._ended[spec.computation_id] = error
        if len(self._ended) > MAX_REMEMBERED:
            self._ended.popitem(last=False)
        if error is None:
            log.info("prediction_finished", computation=spec.computation_id, batch=spec.batch)
            return
        prediction.burn(error)
        log.warning("prediction_burned", computation=spec.computation_id, code=error.code, reason=str(error))

    async def _session(self, spec: PredictionSpec, plan: Plan) -> Session:
        """Each peer may send what the plan declares for its role, and no more."""
        cost = plan.cost(spec.batch)
        online = {spec.roles.first: cost.online_bytes_each_way, spec.roles.second: cost.online_bytes_each_way}
        if self._me == spec.roles.dealer:
            budget = {spec.roles.first: 0, spec.roles.second: 0}
        elif self._me == spec.roles.first:
            budget = {spec.roles.dealer: 0, spec.roles.second: online[spec.roles.second]}
        else:
            budget = {spec.roles.dealer: cost.dealt_bytes, spec.roles.first: online[spec.roles.first]}
        max_bytes = {peer: size + _SLACK_BYTES for peer, size in budget.items()}
        return await self._peers.session(spec.computation_id, max_bytes=max_bytes)

    async def _live(self, prediction: Prediction, model: ModelShare, session: Session) -> Answer | None:
        """The whole computation. None for the dealer."""
        spec, plan, roles = prediction.spec, model.plan, prediction.spec.roles
        await session.join(spec.terms(plan.hash), timeout_s=JOIN_TIMEOUT_S)
        masked = await self._masked_models.agree(session, model, roles)
        sources = session.masks()
        started_s = time.monotonic()
        if spec.is_dealer(self._me):
            dealer = Dealer(sources[roles.first], sources[roles.second])
            dealing = deal_program(plan, dealer_part(masked), dealer, roles, batch=spec.batch)
            await run_party(dealing, session, executor=self._offline)
            prediction.move(PredictionEvent.DEAL)
            return None
        weights = evaluator_part(masked)
        evaluator = Evaluator.of(self._me, roles, sources[roles.dealer])
        preparing = prepare_program(plan, weights, evaluator, batch=spec.batch)
        material = await run_party(preparing, session, executor=self._offline)
        offline_s = time.monotonic() - started_s
        prediction.move(PredictionEvent.PREPARE)
        prediction.input_seed.set_result(material.input_seed)
        masked_input = await session.guard(prediction.masked_input)
        prediction.move(PredictionEvent.EVALUATE)
        evaluating = evaluate_program(
            plan,
            weights,
            evaluator,
            material,
            masked_input.values,
            digest=masked_input.sha256,
            computation=spec.computation_id,
        )
        meter = _Meter(session, material, offline_s)
        return meter.answer(await run_party(evaluating, session, executor=self._online))


class _Meter:
    """What the online part of a prediction costs this evaluator."""

    def __init__(self, session: Session, material: Material, offline_s: float) -> None:
        self._session, self._material, self._offline_s = session, material, offline_s
        self._rounds, self._sent_bytes, self._started_s = session.rounds, session.sent_bytes, time.monotonic()

    def answer(self, share: RingArray) -> Answer:
        return Answer(
            share=share.reshape(-1),
            rounds=self._session.rounds - self._rounds,
            sent_bytes_online=self._session.sent_bytes - self._sent_bytes,
            online_s=time.monotonic() - self._started_s,
            received_bytes_offline=self._material.bytes_received,
            offline_s=self._offline_s,
        )
