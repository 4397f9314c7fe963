"""Closing a round: the three parties add what all of them hold, and all keep the result or none.

`agreement.py` explains why a party can die at any moment. Here: the work between the messages. It runs to
its end, because a cancelled attempt must not commit behind the back of the one that follows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from libs.core.errors import Bug, DeadlineExceeded, FailedPrecondition, NotFound, TrefoilError
from libs.core.ids import PARTIES, PartyId
from libs.fl.strategies.strategy import rescaling
from libs.mpc.norm_check import check_norms, toss_coin
from libs.mpc.prg import MaskSource
from libs.mpc.ring import RingArray
from libs.mpc.schemes.additive.rescale import PublicRatio, rescale_program
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc.computation import Session
from libs.rpc.identity import Identity
from libs.rpc.run_party import run_party
from libs.runtime.logging import get_logger
from libs.runtime.run_to_end import run_to_end
from services.smpc_party.agreement import (
    Adopt,
    Compute,
    FallShort,
    Status,
    confirm_prepared,
    decide,
    decide_after_check,
    digest,
    exchange_status,
)
from services.smpc_party.contribution_check import (
    add_share,
    add_up,
    add_up_and_sketch,
    bounds_of,
    check_bytes,
    differences,
    in_majority,
    take_off,
)
from services.smpc_party.domain import RoundEvent, RoundKey, RoundSpec, RoundState, StoredShare
from services.smpc_party.noise import with_noise
from services.smpc_party.ports import Contribution, Peers, Prepared, RoundRecord, Rounds, Shares

log = get_logger(__name__)

JOIN_TIMEOUT_S = 10.0
_SLACK_BYTES = 4096


@dataclass(frozen=True)
class Closed:
    """How an attempt to close a round ended. No result: below the quorum, the round is open again."""

    result_model_id: str | None
    survivors: tuple[Identity, ...]
    refused: tuple[Identity, ...]
    """Whose complete contributions broke the round's check."""
    sent_bytes: int


@dataclass(frozen=True)
class _Attempt:
    computation_id: str
    task: asyncio.Task[Closed]


class Aggregator:
    """Opens, closes and abandons rounds."""

    def __init__(
        self,
        *,
        me: PartyId,
        rounds: Rounds,
        shares: Shares,
        peers: Peers,
        executor: Executor,
        close_deadline_s: float,
    ) -> None:
        self._me, self._rounds, self._shares, self._peers = me, rounds, shares, peers
        self._executor, self._close_deadline_s = executor, close_deadline_s
        self._attempts: dict[RoundKey, _Attempt] = {}
        self._turns: dict[RoundKey, asyncio.Lock] = {}

    async def open(self, spec: RoundSpec) -> None:
        """Take contributions from now on. Raises `FailedPrecondition` when the base version does not fit."""
        await run_to_end(self._check_base, spec)
        await run_to_end(self._rounds.open_round, spec)

    async def close(self, key: RoundKey, computation_id: str, *, attempt: int) -> Closed:
        """Close the round together with the peers, or say again how it was closed.

        Raises `FailedPrecondition` for another attempt than the one that is open.
        """
        async with self._turn(key):
            running = self._attempts.get(key)
            if running is None or running.task.done() or running.computation_id != computation_id:
                (await run_to_end(self._rounds.round, key)).spec.check_attempt(attempt)
                await self._cancel_attempt(key)
                move_round = self._rounds.move_round
                record = await run_to_end(move_round, key, RoundEvent.CLOSE, attempt=attempt)
                task = asyncio.create_task(self._attempt(record, computation_id))
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
                running = self._attempts[key] = _Attempt(computation_id, task)
                if record.state is RoundState.CLOSED:
                    # The attempt goes on in the background: a peer may have missed the commit.
                    return _answer(record)
        return await asyncio.shield(running.task)

    async def abandon(self, key: RoundKey, *, attempt: int) -> None:
        """Forget an open round and its contributions. A closed or unknown round stays as it is.

        Raises `FailedPrecondition` when a newer attempt is open.
        """
        async with self._turn(key):
            try:
                record = await run_to_end(self._rounds.round, key)
            except NotFound:
                return
            if record.spec.attempt > attempt:
                record.spec.check_attempt(attempt)
            await self._cancel_attempt(key)
            record = await run_to_end(self._rounds.round, key)
            if record.state is not RoundState.CLOSED:
                files = await run_to_end(self._rounds.forget_round, key, attempt=attempt)
                await run_to_end(self._shares.delete, files)
                log.info("round_abandoned", study=key.study_id, round=key.number)

    async def stop(self) -> None:
        """Abort the attempts in progress."""
        for key in list(self._attempts):
            await self._cancel_attempt(key)

    def _check_base(self, spec: RoundSpec) -> None:
        if not spec.base_model_id:
            return
        base = self._rounds.model(spec.base_model_id)
        if base.share is None:
            raise FailedPrecondition(
                f"Model {spec.base_model_id} was not dealt to this party yet. Deal it first."
            )
        if (base.spec.ring, base.spec.length) != (spec.ring, spec.update_length):
            raise FailedPrecondition(f"The updates of {spec.key} do not fit model {spec.base_model_id}.")

    def _turn(self, key: RoundKey) -> asyncio.Lock:
        return self._turns.setdefault(key, asyncio.Lock())

    async def _cancel_attempt(self, key: RoundKey) -> None:
        """End an earlier attempt, so that what it may have stored is known before the next one begins."""
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            attempt.task.cancel()
            await asyncio.gather(attempt.task, return_exceptions=True)

    # ---------------------------------------------------------------- one attempt

    async def _attempt(self, record: RoundRecord, computation_id: str) -> Closed:
        spec = record.spec
        budget = _SLACK_BYTES + 32 * len(spec.participants) + 4 * spec.update_length * spec.ring.element_bytes
        budget += check_bytes(spec)
        peers = [party for party in PARTIES if party != self._me]
        try:
            async with asyncio.timeout(self._close_deadline_s):
                async with await self._peers.session(
                    computation_id, max_bytes=dict.fromkeys(peers, budget)
                ) as session:
                    closed = await self._agree(session, spec)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The parties did not close {spec.key} within {self._close_deadline_s:g} s. Close it again."
            ) from None
        except TrefoilError as error:
            log.warning("round_close_failed", study=spec.key.study_id, round=spec.key.number, code=error.code)
            raise
        log.info(
            "round_closed",
            study=spec.key.study_id,
            round=spec.key.number,
            aggregated=closed.result_model_id is not None,
            survivors=len(closed.survivors),
            refused=len(closed.refused),
            sent_bytes=closed.sent_bytes,
        )
        return closed

    async def _agree(self, session: Session, spec: RoundSpec) -> Closed:
        await session.join(b"close\0" + spec.to_json().encode(), timeout_s=JOIN_TIMEOUT_S)
        contributions = await run_to_end(self._rounds.contributions, spec.key)
        record = await run_to_end(self._rounds.round, spec.key)
        status = Status.of(record, contributions)
        statuses = await run_party(exchange_status(self._me, status), session, executor=self._executor)
        match decide(spec, statuses):
            case FallShort() as short:
                return await self._fall_short(session, spec, short)
            case Compute(candidates):
                decision = await self._prepare(session, spec, candidates, contributions)
                if isinstance(decision, FallShort):
                    return await self._fall_short(session, spec, decision)
                confirmation = confirm_prepared(self._me, session.computation_id)
                await run_party(confirmation, session, executor=self._executor)
            case Adopt(attempt):
                if record.prepared is None or digest(record.prepared.computation_id) != attempt:
                    raise Bug(f"The {spec.key} was committed elsewhere without this party's result.")
        return await self._commit(spec.key)

    async def _fall_short(self, session: Session, spec: RoundSpec, short: FallShort) -> Closed:
        """Open the round again."""
        move_round = self._rounds.move_round
        event, attempt = RoundEvent.FALL_SHORT, spec.attempt
        await run_to_end(move_round, spec.key, event, attempt=attempt, refused=short.refused)
        return Closed(None, short.survivors, short.refused, session.sent_bytes)

    async def _prepare(
        self,
        session: Session,
        spec: RoundSpec,
        candidates: tuple[Identity, ...],
        contributions: list[Contribution],
    ) -> Compute | FallShort:
        """Compute this party's share of the result and put it on disk, unless the check leaves too few."""
        held = {contribution.hospital: contribution.share for contribution in contributions}
        masks, chosen = session.masks(), Compute(candidates)
        if spec.checked:
            decision, total = await self._add_checked(session, spec, candidates, held, masks)
            if isinstance(decision, FallShort):
                return decision
            chosen = decision
        else:
            total = await run_to_end(self._sum, spec, [held[hospital] for hospital in candidates])
        update, metrics = total[: spec.update_length], total[spec.update_length :]
        update = await run_to_end(with_noise, update, spec)
        ratio = rescaling({p.hospital: p.weight for p in spec.participants}, chosen.survivors)
        if ratio != 1:
            program = rescale_program(
                self._me,
                Roles.rotated(spec.key.number),
                masks,
                update,
                PublicRatio.nearest(ratio),
                spec.ring,
            )
            update = await run_party(program, session, executor=self._executor)
        await run_to_end(
            self._store_prepared,
            spec,
            session.computation_id,
            chosen,
            update,
            metrics,
            session.sent_bytes,
        )
        return chosen

    async def _add_checked(
        self,
        session: Session,
        spec: RoundSpec,
        candidates: tuple[Identity, ...],
        held: Mapping[Identity, StoredShare],
        masks: dict[PartyId, MaskSource],
    ) -> tuple[Compute | FallShort, RingArray]:
        """Which contributions keep to the round's rules, and this party's share of the sum of these.

        The coin is tossed here: every party has stopped taking contributions and said which ones it holds.
        """
        started_s = time.perf_counter()
        seed = await run_party(toss_coin(self._me, session.computation_id), session, executor=self._executor)
        chosen = [held[hospital] for hospital in candidates]
        total, checked = await run_to_end(add_up_and_sketch, self._shares, spec, chosen, seed)
        added_s = time.perf_counter()
        rows, bounds = differences(checked) if spec.same else (checked, bounds_of(spec, candidates))
        program = check_norms(self._me, Roles.rotated(spec.key.number), masks, rows, bounds)
        accepted = await run_party(program, session, executor=self._executor)
        if spec.same:
            accepted = in_majority(accepted, len(candidates))
        decision = decide_after_check(spec, candidates, accepted)
        if decision.refused:
            names = [hospital.name for hospital in decision.refused]
            study, number = spec.key.study_id, spec.key.number
            log.warning("contributions_refused", study=study, round=number, hospitals=names)
        if isinstance(decision, Compute):
            left_out = [held[hospital] for hospital in decision.refused]
            await run_to_end(take_off, self._shares, total, left_out)
        log.info("shares_added", round=spec.key.number, seconds=round(added_s - started_s, 3), sketched=True)
        seconds = round(time.perf_counter() - added_s, 3)
        log.info("contributions_checked", round=spec.key.number, seconds=seconds)
        return decision, total

    def _sum(self, spec: RoundSpec, shares: Sequence[StoredShare]) -> RingArray:
        """This party's share of the sum, mod 2^k. Shape (length,)."""
        started_s = time.perf_counter()
        total = add_up(self._shares, spec, shares)
        log.info("shares_added", round=spec.key.number, seconds=round(time.perf_counter() - started_s, 3))
        return total

    def _store_prepared(
        self,
        spec: RoundSpec,
        computation_id: str,
        chosen: Compute,
        update: RingArray,
        metrics: RingArray,
        sent_bytes: int,
    ) -> None:
        started_s = time.perf_counter()
        if spec.base_model_id:
            base = self._rounds.model(spec.base_model_id).share
            assert base is not None  # checked when the round was opened
            add_share(self._shares, update, base)
        saved: list[StoredShare] = []
        try:
            saved.append(self._shares.save(update, context=spec.result_context, ring=spec.ring))
            if spec.metrics_length:
                saved.append(self._shares.save(metrics, context=spec.metrics_context, ring=spec.ring))
            prepared = Prepared(
                computation_id,
                chosen.survivors,
                saved[0],
                saved[1] if spec.metrics_length else None,
                sent_bytes,
                chosen.refused,
            )
            replaced = self._rounds.prepare(spec.key, prepared)
        except BaseException:
            self._shares.delete(saved)
            raise
        self._shares.delete(replaced)
        log.info("result_stored", round=spec.key.number, seconds=round(time.perf_counter() - started_s, 3))

    async def _commit(self, key: RoundKey) -> Closed:
        record = await run_to_end(self._rounds.round, key)
        if record.state is not RoundState.CLOSED:
            files = await run_to_end(self._rounds.commit, key)
            await run_to_end(self._shares.delete, files)
        return _answer(record)


def _answer(record: RoundRecord) -> Closed:
    assert record.prepared is not None  # the round is closed, or its result is about to be committed
    prepared = record.prepared
    return Closed(record.spec.result_model_id, prepared.survivors, prepared.refused, prepared.sent_bytes)
