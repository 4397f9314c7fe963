"""This hospital's word on who may ask a released model, told to the three parties until all have it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.core.errors import NotFound, PermissionDenied, TrefoilError
from libs.core.ids import PARTIES, PartyId
from libs.runtime.logging import get_logger
from services.hospital_node.access.domain import Approval, ApprovalState
from services.hospital_node.access.ports import AccessStore, Unit

RETRY_S = 30.0
EVERYBODY = "*"
"""Whoever has no rule of his own."""

log = get_logger(__name__)


@dataclass(frozen=True)
class UseRule:
    """One asker of one model. `max_predictions` counts images, over the approval's whole life."""

    asker: str
    allowed: bool
    max_predictions: int
    expires_at: datetime | None
    approval_id: str


@dataclass(frozen=True)
class UseRules:
    """All of this hospital's rules for a model, and the parties that know them already."""

    model_id: str
    revision: int
    rules: tuple[UseRule, ...]
    told: frozenset[int]


class Parties(Protocol):
    """The three parties, for rules."""

    async def set_model_use(self, party: PartyId, rules: UseRules) -> int:
        """The revision that the party has now, not below the one sent. Raises Unavailable, NotFound."""
        ...


def rules_for(approvals: list[Approval], *, training: Approval | None, now: datetime) -> tuple[UseRule, ...]:
    """One rule for each asker: of several approvals the newest one's. What is over is forbidden by name.

    When the approval that the model was trained under is revoked, nobody may ask it any more.
    """
    withdrawn = training is not None and training.revoked_at is not None
    newest = {approval.requester: approval for approval in approvals}
    rules = [
        UseRule(
            asker=asker,
            allowed=approval.state(now) is ApprovalState.LIVE and not withdrawn,
            max_predictions=approval.uses,
            expires_at=approval.expires_at,
            approval_id=approval.approval_id,
        )
        for asker, approval in sorted(newest.items())
    ]
    if training is not None and withdrawn:
        rules.append(UseRule(EVERYBODY, False, 0, None, training.approval_id))
    return tuple(rules)


def released_model(study_id: str) -> str:
    """The model that a study releases, by the name that coordinator and parties give it."""
    return f"{study_id}/released"


def untold(unit: Unit) -> list[UseRules]:
    """The rules that some party does not have yet."""
    found = []
    for model_id, revision, told in unit.model_uses_untold():
        study = unit.study(model_id.rpartition("/")[0])
        training = None if study is None else unit.approval(study.approval_id)
        rules = rules_for(unit.approvals_of_model(model_id), training=training, now=unit.now)
        found.append(UseRules(model_id, revision, rules, told))
    return found


class ModelUseTeller:
    """Tells rules when they change, when the parties' addresses come, and again while one is away."""

    def __init__(self, *, store: AccessStore, parties: Parties, retry_s: float = RETRY_S) -> None:
        self._store, self._parties, self._retry_s = store, parties, retry_s
        self._wake = asyncio.Event()

    def changed(self) -> None:
        """There may be something to tell, or somebody to tell it to."""
        self._wake.set()

    async def run(self) -> None:
        """For ever; only cancelling ends it."""
        while True:
            self._wake.clear()
            all_told = await self.tell()
            try:
                await asyncio.wait_for(self._wake.wait(), None if all_told else self._retry_s)
            except TimeoutError:
                continue

    async def tell(self) -> bool:
        """Once to every party that lacks something. Whether all three have everything now."""
        all_told = True
        for rules in await self._store.run(untold):
            for party in PARTIES:
                if party not in rules.told:
                    all_told = await self._tell_one(party, rules) and all_told
        return all_told

    async def _tell_one(self, party: PartyId, rules: UseRules) -> bool:
        try:
            known = await self._parties.set_model_use(party, rules)
        except NotFound:
            # Not released, not yet at least; the end of the study and every connect bring us here again.
            return True
        except PermissionDenied:
            known = rules.revision  # nothing of this hospital is in the model: there is nothing to forbid
        except TrefoilError as error:
            log.warning("model_use_not_told", model=rules.model_id, party=party, code=error.code)
            return False
        if known > rules.revision:
            # This node was set back to an older database: number on from what the party knows.
            await self._store.run(lambda unit: unit.model_use_ahead(rules.model_id, known))
            return False
        await self._store.run(
            lambda unit: unit.model_use_told(rules.model_id, revision=rules.revision, party=party)
        )
        log.info("model_use_told", model=rules.model_id, party=party, revision=rules.revision)
        return True
