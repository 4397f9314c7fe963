"""Predictions allowed, counted and refused at this party, by what the hospitals say and nobody else.

The process is the only writer, so what is in memory decides, between two steps of the event loop: of a
hundred predictions that want the last one, one gets it. What is counted under a limit is on the disk before
the prediction begins, and counts whether it ends well or not. What has no limit is counted in memory and
written every other second, so that nobody waits for the disk.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from libs.core.clock import Clock
from libs.core.errors import FailedPrecondition, PermissionDenied, TrefoilError
from libs.rpc.identity import Identity
from libs.runtime.logging import get_logger
from libs.runtime.run_to_end import run_to_end
from services.smpc_party.domain import ModelSpec
from services.smpc_party.model_use import Allowance, Counter, HospitalRules, allowances, used_up
from services.smpc_party.ports import Home, UseStore

log = get_logger(__name__)
T = TypeVar("T")

FLUSH_EVERY_S = 2.0


class Uses(Protocol):
    """Whether somebody may ask a model."""

    async def charge(self, model: ModelSpec, asker: Identity, *, images: int) -> bool:
        """Count a prediction that is about to begin; whether it is under a limit.

        Raises `PermissionDenied`, `StorageFull`.
        """
        ...

    async def check(self, model: ModelSpec, asker: Identity) -> None:
        """Raise `PermissionDenied` if a prediction that was counted may not go on."""
        ...

    async def set_rules(self, model: ModelSpec, hospital: Identity, rules: HospitalRules) -> int:
        """Replace one hospital's rules; the revision of those that hold now."""
        ...

    async def asked(self, model: ModelSpec, hospital: Identity) -> Mapping[str, int]:
        """Images by asker, for a hospital in the model."""
        ...


@dataclass
class _Usage:
    """One model's rules and counts."""

    rules: dict[Identity, HospitalRules]
    counts: defaultdict[Counter, int]


class ModelUses:
    """The rules and counts of cell 0."""

    def __init__(self, *, store: UseStore, clock: Clock, flush_every_s: float = FLUSH_EVERY_S) -> None:
        self._store, self._clock, self._flush_every_s = store, clock, flush_every_s
        self._usages: dict[str, _Usage] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._unwritten: defaultdict[str, defaultdict[Counter, int]] = defaultdict(lambda: defaultdict(int))
        self._writing = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self._flushing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write counts in the background from now on."""
        self._flushing = asyncio.create_task(self._keep_flushing())

    async def stop(self) -> None:
        """Write what is counted."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._flush()

    async def charge(self, model: ModelSpec, asker: Identity, *, images: int) -> bool:
        """Count a prediction that is about to begin; under a limit, on the disk, which is what it answers.

        Raises `PermissionDenied`, and `StorageFull` for one under a limit.
        """
        usage = await self._usage(model.model_id)
        given = self._allowances(model, usage, asker)
        for allowance in given:
            if allowance.limit and usage.counts[allowance.counter] + images > allowance.limit:
                raise used_up(asker, model.model_id, allowance)
        counters = [Counter.of_asker(asker), *(allowance.counter for allowance in given)]
        for counter in counters:
            usage.counts[counter] += images
        limited = any(allowance.limit for allowance in given)
        if limited:
            await run_to_end(self._store.count, model.model_id, dict.fromkeys(counters, images))
        else:
            for counter in counters:
                self._unwritten[model.model_id][counter] += images
        return limited

    async def check(self, model: ModelSpec, asker: Identity) -> None:
        """Raise `PermissionDenied` if a hospital's consent ended since the prediction was counted."""
        self._allowances(model, await self._usage(model.model_id), asker)

    async def set_rules(self, model: ModelSpec, hospital: Identity, rules: HospitalRules) -> int:
        """Replace one hospital's rules, on the disk; the revision of those that hold now.

        An older revision changes nothing. Raises `PermissionDenied` for a hospital that is not in the model.
        """
        _check_in_it(model, hospital)
        # A caller who hangs up must not leave the disk ahead of memory, which decides.
        return await self._to_end(self._set_rules(model.model_id, hospital, rules))

    async def asked(self, model: ModelSpec, hospital: Identity) -> Mapping[str, int]:
        """Images by asker. Raises `PermissionDenied` for a hospital that is not in the model."""
        _check_in_it(model, hospital)
        counts = (await self._usage(model.model_id)).counts
        return {counter.asker: images for counter, images in counts.items() if _is_askers(counter)}

    def _allowances(self, model: ModelSpec, usage: _Usage, asker: Identity) -> tuple[Allowance, ...]:
        return given_by(model, usage.rules, asker, now_s=self._clock.now().timestamp())

    async def _set_rules(self, model_id: str, hospital: Identity, rules: HospitalRules) -> int:
        usage = await self._usage(model_id)
        async with self._writing:
            known = usage.rules.get(hospital)
            if known is not None and known.revision >= rules.revision:
                return known.revision
            gone = _counters_without_a_rule(usage, hospital, rules)
            await run_to_end(self._store.set_rules, model_id, hospital, rules, gone)
            usage.rules[hospital] = rules
            for counter in gone:
                usage.counts.pop(counter, None)
                self._unwritten[model_id].pop(counter, None)
        allowed = sum(rule.allowed for rule in rules.rules)
        log.info(
            "model_use_set", model=model_id, hospital=hospital.uri, revision=rules.revision, allowed=allowed
        )
        return rules.revision

    async def _usage(self, model_id: str) -> _Usage:
        known = self._usages.get(model_id)
        if known is not None:
            return known
        async with self._loading.setdefault(model_id, asyncio.Lock()):
            if model_id not in self._usages:
                rules, counts = await run_to_end(self._store.load, model_id)
                self._usages[model_id] = _Usage(dict(rules), defaultdict(int, counts))
        self._loading.pop(model_id, None)
        return self._usages[model_id]

    async def _to_end(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(self._flush_every_s)
            await self._flush()

    async def _flush(self) -> None:
        """Write what was counted in memory only. What cannot be written now stays for the next time."""
        async with self._writing:
            for model_id in list(self._unwritten):
                counts = self._unwritten.pop(model_id)
                if not counts:
                    continue
                try:
                    await run_to_end(self._store.count, model_id, counts)
                except TrefoilError as error:
                    for counter, images in counts.items():
                        self._unwritten[model_id][counter] += images
                    log.warning("model_use_not_written", model=model_id, code=error.code)


class UsesAtHome:
    """What a replica outside cell 0 knows: nothing but the model's own words. The hospitals' are at home.

    It asks home for every prediction of a model that hospitals made or that has a limit. So three cells are
    not three times the limit, and a revocation holds in all of them.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    async def charge(self, model: ModelSpec, asker: Identity, *, images: int) -> bool:
        """Have it counted. Raises `PermissionDenied`, and `Unavailable` when home is down."""
        if model.hospitals or model.use.max_predictions:
            return await self._home.use_model(model.model_id, asker, images=images)
        given_by(model, {}, asker, now_s=0.0)
        return False

    async def check(self, model: ModelSpec, asker: Identity) -> None:
        """As `charge`, counting nothing."""
        await self.charge(model, asker, images=0)

    async def set_rules(self, model: ModelSpec, hospital: Identity, rules: HospitalRules) -> int:
        """Refuse."""
        raise FailedPrecondition(_NOT_HERE)

    async def asked(self, model: ModelSpec, hospital: Identity) -> Mapping[str, int]:
        """Refuse."""
        raise FailedPrecondition(_NOT_HERE)


_NOT_HERE = (
    "This is a further replica of its party. Say it to the one in cell 0, which counts for all of them."
)


def given_by(
    model: ModelSpec, rules: Mapping[Identity, HospitalRules], asker: Identity, *, now_s: float
) -> tuple[Allowance, ...]:
    """What a prediction rests on; nothing for the dealer, who may always ask his own model.

    Raises `PermissionDenied`.
    """
    if asker == model.dealer:
        return ()
    return allowances(model.use, model.hospitals, rules, asker, model_id=model.model_id, now_s=now_s)


def _check_in_it(model: ModelSpec, hospital: Identity) -> None:
    if hospital not in model.hospitals:
        raise PermissionDenied(
            f"No contribution of {hospital} is in model {model.model_id}. Only the hospitals that a model "
            "was made at say who may ask it, and learn who did."
        )


def _is_askers(counter: Counter) -> bool:
    return not counter.hospital and bool(counter.asker)


def _counters_without_a_rule(usage: _Usage, hospital: Identity, rules: HospitalRules) -> list[Counter]:
    """Counters of this hospital that no rule of the new ones goes on with."""
    going_on = {Counter.of_rule(hospital, rule) for rule in rules.rules}
    return [c for c in usage.counts if c.hospital == hospital.uri and c not in going_on]
