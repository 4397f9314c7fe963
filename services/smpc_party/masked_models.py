"""Models under masks, kept between predictions.

Masking a model's weights costs a message as long as the model, so it is done once for a model and a
choice of roles. What the three parties keep belongs together: an evaluator's weights under one masking
are noise under another. So the dealer names the masking of every prediction, and takes one from before
only if both evaluators still have their part of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from libs.core.errors import Bug, DeadlineExceeded
from libs.core.ids import PARTIES, PartyId
from libs.mpc.program import ArraySpec, Program, Round
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc.computation import Session
from libs.rpc.run_party import run_party
from libs.secure_nn.plan import Plan
from libs.secure_nn.secure_model import DealerModel, EvaluatorModel, cut_parameters, mask_model_program
from services.smpc_party.domain import StoredShare
from services.smpc_party.ports import Blobs, Peers, Shares

MAX_KEPT = 9
"""Maskings kept at a time: three models in each of three roles."""

MASKING_DEADLINE_S = 60.0
JOIN_TIMEOUT_S = 10.0
_SLACK_BYTES = 4096
_U8: np.dtype[Any] = np.dtype(np.uint8)
_NAME = {"masking": ArraySpec(_U8, (32,))}
_KNOWN = {"known": ArraySpec(_U8, (1,))}

Masked = DealerModel | EvaluatorModel


@dataclass(frozen=True)
class ModelShare:
    """A model that can be evaluated: its plan and this party's share of its parameters."""

    model_id: str
    plan: Plan
    share: StoredShare


@dataclass(frozen=True)
class _Key:
    model_id: str
    roles: Roles


class MaskedModels:
    """This party's part of every masking it takes part in."""

    def __init__(
        self, *, me: PartyId, shares: Shares, peers: Peers, blobs: Blobs, executor: Executor
    ) -> None:
        self._me, self._shares, self._peers, self._executor = me, shares, peers, executor
        self._blobs = blobs
        # Read from the disk, for material only: nothing new is prepared with them.
        self._loaded: OrderedDict[bytes, asyncio.Task[Masked]] = OrderedDict()
        self._stored: set[bytes] = set()
        self._storing = threading.Lock()
        self._kept: OrderedDict[tuple[_Key, bytes], asyncio.Task[Masked]] = OrderedDict()
        self._turns: dict[_Key, asyncio.Lock] = {}

    async def agree(self, session: Session, model: ModelShare, roles: Roles) -> tuple[bytes, Masked]:
        """The masking that this computation uses and this party's part of it, made now if need be."""
        key = _Key(model.model_id, roles)
        if self._me != roles.dealer:
            program = _follow(roles, lambda name: (key, name) in self._kept)
            name = await run_party(program, session, executor=self._executor)
            task = self._get(key, name, model)
            await run_party(_say(roles.dealer, "masking/begun", 1), session, executor=self._executor)
            return name, await asyncio.shield(task)
        # One prediction at a time names a masking, and the next one waits until both evaluators have
        # begun it, so that predictions opened together share it.
        async with self._turns.setdefault(key, asyncio.Lock()):
            fresh = hashlib.sha256(b"masking\0" + session.computation_id.encode()).digest()
            mine = next((name for k, name in reversed(self._kept) if k == key), fresh)
            naming = _lead(roles, mine, fresh)
            name = await run_party(naming, session, executor=self._executor)
            task = self._get(key, name, model)
        return name, await asyncio.shield(task)

    async def weights(self, model: ModelShare, roles: Roles, name: bytes) -> EvaluatorModel:
        """An evaluator's part of a masking that it had stored, for material that was made with it.

        Raises `FailedPrecondition` when it is not there any more.
        """
        known = self._kept.get((_Key(model.model_id, roles), name)) or self._loaded.get(name)
        if known is None:
            known = asyncio.create_task(asyncio.to_thread(self._load, model.plan, name))
            self._loaded[name] = known
            while len(self._loaded) > MAX_KEPT:
                self._loaded.popitem(last=False)
        return evaluator_part(await asyncio.shield(known))

    def store(self, name: bytes, part: EvaluatorModel) -> None:
        """Keep what evaluating needs of this masking on the disk, once. Blocks."""
        with self._storing:
            if name in self._stored:
                return
            size_bytes = sum(share.nbytes for share in part.shares)
            views = (memoryview(np.ascontiguousarray(s).reshape(-1).view(np.uint8).data) for s in part.shares)
            self._blobs.save(blob_name(name), views, size_bytes=size_bytes)
            self._stored.add(name)

    def forget_stored(self, names: Iterable[bytes]) -> None:
        """Remove maskings from the disk that no material needs any more. Blocks."""
        with self._storing:
            for name in names:
                self._blobs.delete(blob_name(name))
                self._stored.discard(name)
                self._loaded.pop(name, None)

    def found_stored(self, names: Iterable[bytes]) -> None:
        """These are on the disk from before the start."""
        self._stored.update(names)

    def _load(self, plan: Plan, name: bytes) -> Masked:
        vector = np.frombuffer(self._blobs.load(blob_name(name)), dtype=plan.ring.dtype)
        if len(vector) != plan.parameter_length:
            raise Bug("A stored masking does not have the length of its model.")
        return EvaluatorModel((), cut_parameters(plan, vector))

    async def stop(self) -> None:
        """Abort what is being masked."""
        for task in self._kept.values():
            task.cancel()
        await asyncio.gather(*self._kept.values(), return_exceptions=True)

    def _get(self, key: _Key, name: bytes, model: ModelShare) -> asyncio.Task[Masked]:
        known = self._kept.get((key, name))
        if known is not None:
            self._kept.move_to_end((key, name))
            return known
        task = asyncio.create_task(self._mask(key, name, model))
        self._kept[key, name] = task
        task.add_done_callback(lambda done: self._settle(key, name, done))
        return task

    def _settle(self, key: _Key, name: bytes, task: asyncio.Task[Masked]) -> None:
        """Drop what failed, and the oldest beyond the limit."""
        if task.cancelled() or task.exception() is not None:
            self._kept.pop((key, name), None)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _mask(self, key: _Key, name: bytes, model: ModelShare) -> Masked:
        plan = model.plan
        budget = plan.parameter_length * plan.ring.element_bytes + _SLACK_BYTES
        peers = [party for party in PARTIES if party != self._me]
        try:
            async with asyncio.timeout(MASKING_DEADLINE_S):
                session = await self._peers.session(
                    f"masking-{name.hex()}", max_bytes=dict.fromkeys(peers, budget)
                )
                async with session:
                    await session.join(_terms(key, plan), timeout_s=JOIN_TIMEOUT_S)
                    share = await asyncio.to_thread(self._shares.load, model.share)
                    program = mask_model_program(self._me, key.roles, session.masks(), plan, share)
                    return await run_party(program, session, executor=self._executor)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The parties did not mask model {key.model_id} within {MASKING_DEADLINE_S:g} s. Ask again."
            ) from None


def _terms(key: _Key, plan: Plan) -> bytes:
    roles = f"{key.roles.dealer}{key.roles.first}{key.roles.second}"
    return f"mask {key.model_id} {plan.hash} {roles}".encode()


def _lead(roles: Roles, mine: bytes, fresh: bytes) -> Program[bytes]:
    """The dealer's side: offer a masking, and make a fresh one unless both evaluators know it."""
    evaluators = (roles.first, roles.second)
    offer = {"masking": np.frombuffer(mine, np.uint8)}
    yield Round("masking/offer", sends=dict.fromkeys(evaluators, offer))
    inbox = yield Round("masking/known", awaits=dict.fromkeys(evaluators, _KNOWN))
    known = all(bool(message["known"][0]) for message in inbox.values())
    name = mine if known else fresh
    choice = {"masking": np.frombuffer(name, np.uint8)}
    yield Round("masking/choice", sends=dict.fromkeys(evaluators, choice))
    yield Round("masking/begun", awaits=dict.fromkeys(evaluators, _KNOWN))
    return name


def _follow(roles: Roles, is_kept: Callable[[bytes], bool]) -> Program[bytes]:
    """An evaluator's side: say whether the offer is known, and take the dealer's choice."""
    offered = yield from _hear(roles.dealer, "masking/offer")
    yield from _say(roles.dealer, "masking/known", is_kept(offered))
    return (yield from _hear(roles.dealer, "masking/choice"))


def _say(dealer: PartyId, label: str, known: int) -> Program[None]:
    yield Round(label, sends={dealer: {"known": np.array([known], dtype=np.uint8)}})


def _hear(dealer: PartyId, label: str) -> Program[bytes]:
    inbox = yield Round(label, awaits={dealer: _NAME})
    return inbox[dealer]["masking"].tobytes()


def blob_name(masking: bytes) -> str:
    """Where a masking's part lies on the disk."""
    return f"masking-{masking.hex()}"


def dealer_part(masked: Masked) -> DealerModel:
    """The dealer's part, told from an evaluator's by the roles."""
    if not isinstance(masked, DealerModel):
        raise Bug("A dealer was given an evaluator's part of a masked model.")
    return masked


def evaluator_part(masked: Masked) -> EvaluatorModel:
    """An evaluator's part, told from the dealer's by the roles."""
    if not isinstance(masked, EvaluatorModel):
        raise Bug("An evaluator was given the dealer's part of a masked model.")
    return masked
