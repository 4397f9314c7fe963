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
from libs.mpc.schemes.masked.comparison import Comparison
from libs.mpc.schemes.masked.roles import Evaluator
from libs.rpc.computation import Session
from libs.rpc.identity import Identity
from libs.rpc.run_party import run_party
from libs.runtime.logging import get_logger
from libs.secure_nn.plan import Plan
from libs.secure_nn.predict import evaluate_program
from services.smpc_party import events
from services.smpc_party.dealing import Dealing, Ready
from services.smpc_party.domain import (
    PREDICTION_TABLE,
    ModelSpec,
    PredictionEvent,
    PredictionSpec,
    PredictionState,
    move,
)
from services.smpc_party.filling import Filler
from services.smpc_party.limits import PredictionLimits, working_bytes
from services.smpc_party.masked_models import ModelShare
from services.smpc_party.material import Shelf, session_budget
from services.smpc_party.models import EvaluableModels
from services.smpc_party.pool import Pool
from services.smpc_party.ports import Audit, Peers
from services.smpc_party.uses import Uses

log = get_logger(__name__)
T = TypeVar("T")

MAX_REMEMBERED = 1000
JOIN_TIMEOUT_S = 10.0


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
    dealt_ahead: bool
    comparison: Comparison


class Prediction:
    """One prediction: its state, and what passes between its task and the client's stream."""

    def __init__(self, spec: PredictionSpec, model: ModelSpec, plan: Plan) -> None:
        self.spec, self.model, self.plan = spec, model, plan
        self.client, self.working_bytes = spec.client, working_bytes(plan, batch=spec.batch)
        self.state = PredictionState.PREPARING
        self.claimed = False
        loop = asyncio.get_running_loop()
        self.input_seed: asyncio.Future[bytes] = loop.create_future()
        self.masked_input: asyncio.Future[MaskedInput] = loop.create_future()
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self.admitted: asyncio.Future[bool] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self.refusal: PermissionDenied | None = None

    def move(self, event: PredictionEvent) -> None:
        """Take one step of the table."""
        self.state = move(PREDICTION_TABLE, self.state, event, what=f"Prediction {self.spec.computation_id}")

    def burn(self, error: TrefoilError) -> None:
        """End it with an error; whoever waits for it is told."""
        if self.state not in {PredictionState.FINISHED, PredictionState.BURNED}:
            self.move(PredictionEvent.BURN)
        for future in (self.admitted, self.input_seed, self.answer):
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
        models: EvaluableModels,
        uses: Uses,
        pool: Pool,
        filler: Filler,
        dealing: Dealing,
        peers: Peers,
        online: Executor,
        offline: Executor,
        max_batch: int,
        limits: PredictionLimits,
        deadline_s: float,
        audit: Audit,
    ) -> None:
        """`online` runs what a client waits for, `offline` the long work ahead of it."""
        self._me, self._models, self._uses, self._pool, self._filler = me, models, uses, pool, filler
        self._audit = audit
        self._dealing, self._peers = dealing, peers
        self._online, self._offline = online, offline
        self._max_batch, self._limits, self._deadline_s = max_batch, limits, deadline_s
        self._open: dict[str, Prediction] = {}
        self._ended: OrderedDict[str, TrefoilError | None] = OrderedDict()

    async def open(self, spec: PredictionSpec) -> bool:
        """Begin a prediction in the background; whether it is under a limit. The same assignment again
        changes nothing.

        It is counted before it begins, and stays counted whatever becomes of it. Raises `AlreadyExists` for a
        computation id that was used, `FailedPrecondition` for a model that cannot be evaluated, `TooLarge`,
        `InvalidInput`, `PermissionDenied`, `NotFound`, `Unavailable`.
        """
        self._check_new(spec)
        record, model = await self._models.get(spec.model_id)
        known = self._open.get(spec.computation_id)
        if known is not None and known.spec == spec:
            return await asyncio.shield(known.admitted)
        self._check_new(spec)
        prediction = Prediction(spec, record.spec, model.plan)
        self._limits.check_room(spec.client, prediction.working_bytes, self._open.values())
        self._audit.require_room()
        self._open[spec.computation_id] = prediction
        limited = await self._admit(prediction)
        self._audit.submit(events.prediction_opened(spec, self._me))
        prediction.task = asyncio.create_task(self._run(prediction, model))
        return limited

    async def _admit(self, prediction: Prediction) -> bool:
        """Have it counted. A prediction that is refused leaves nothing behind."""
        spec = prediction.spec
        try:
            limited = await self._uses.charge(prediction.model, spec.client, images=spec.batch)
        except BaseException as error:
            self._open.pop(spec.computation_id, None)
            refused = (
                error if isinstance(error, TrefoilError) else Unavailable("It was not begun. Ask again.")
            )
            prediction.burn(refused)
            raise
        prediction.admitted.set_result(limited)
        return limited

    async def burn_refused(self, model_id: str) -> None:
        """After a change of consent: end what was not evaluated yet of those who may not ask any more."""
        waiting = {PredictionState.PREPARING, PredictionState.READY}
        for prediction in [p for p in self._open.values() if p.spec.model_id == model_id]:
            if prediction.task is None or prediction.state not in waiting:
                continue
            try:
                await self._uses.check(prediction.model, prediction.client)
            except PermissionDenied as error:
                prediction.refusal = error
                prediction.task.cancel()

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
        self._audit.submit(events.prediction_claimed(prediction.spec, self._me))
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

    # ---------------------------------------------------------------- the task of one prediction

    async def _run(self, prediction: Prediction, model: ModelShare) -> None:
        spec = prediction.spec
        error: TrefoilError | None = None
        try:
            with self._filler.giving_way():
                async with (
                    asyncio.timeout(spec.deadline_s),
                    await self._session(spec, model.plan) as session,
                ):
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
            cancelled = Unavailable(f"Prediction {spec.computation_id} was cancelled. Ask again.")
            error = prediction.refusal or cancelled
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
            self._audit.submit(events.prediction_finished(spec, self._me))
            log.info("prediction_finished", computation=spec.computation_id, batch=spec.batch)
            return
        self._audit.submit(events.prediction_burned(spec, self._me, error))
        prediction.burn(error)
        log.warning("prediction_burned", computation=spec.computation_id, code=error.code, reason=str(error))

    async def _session(self, spec: PredictionSpec, plan: Plan) -> Session:
        budget = session_budget(self._me, spec.roles, plan, batch=spec.batch, online=True)
        return await self._peers.session(spec.computation_id, max_bytes=budget)

    async def _live(self, prediction: Prediction, model: ModelShare, session: Session) -> Answer | None:
        """The whole computation. None for the dealer."""
        spec, plan, roles = prediction.spec, model.plan, prediction.spec.roles
        await session.join(spec.terms(plan.hash), timeout_s=JOIN_TIMEOUT_S)
        shelf = Shelf(spec.model_id, spec.batch, roles)
        self._filler.asked(spec.model_id, spec.batch)
        masks = session.masks()
        piece = await self._pool.reserve(session, shelf)
        if spec.is_dealer(self._me):
            if piece is None:
                await self._dealing.make(session, masks, shelf, model, self._offline, waited_for=True)
            prediction.move(PredictionEvent.DEAL)
            return None
        if piece is None:
            dealt = await self._dealing.make(session, masks, shelf, model, self._offline, waited_for=True)
            ready = dealt.of_evaluator
        else:
            ready = await self._pool.fetch(piece, model)
        session.release(roles.dealer)
        prediction.move(PredictionEvent.PREPARE)
        prediction.input_seed.set_result(ready.material.input_seed)
        masked_input = await session.guard(prediction.masked_input)
        # A client decides when its input comes; the consent that counts is the one at that moment.
        await self._uses.check(prediction.model, spec.client)
        prediction.move(PredictionEvent.EVALUATE)
        evaluating = evaluate_program(
            plan,
            ready.weights,
            Evaluator.of(self._me, roles, masks[roles.dealer]),
            ready.material,
            masked_input.values,
            digest=masked_input.sha256,
            computation=spec.computation_id,
        )
        meter = _Meter(session, ready, dealt_ahead=piece is not None)
        return meter.answer(await run_party(evaluating, session, executor=self._online))


class _Meter:
    """What the online part of a prediction costs this evaluator."""

    def __init__(self, session: Session, ready: Ready, *, dealt_ahead: bool) -> None:
        self._session, self._ready, self._dealt_ahead = session, ready, dealt_ahead
        self._rounds, self._sent_bytes, self._started_s = session.rounds, session.sent_bytes, time.monotonic()

    def answer(self, share: RingArray) -> Answer:
        return Answer(
            share=share.reshape(-1),
            rounds=self._session.rounds - self._rounds,
            sent_bytes_online=self._session.sent_bytes - self._sent_bytes,
            online_s=time.monotonic() - self._started_s,
            received_bytes_offline=self._ready.received_bytes,
            offline_s=self._ready.seconds,
            dealt_ahead=self._dealt_ahead,
            comparison=self._ready.material.comparison,
        )
