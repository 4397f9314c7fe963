"""How often models were asked that this hospital's data is in: entries of the ledger, by the parties."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from libs.core.errors import TrefoilError
from libs.core.ids import PARTIES, PartyId
from libs.dp.events import PostProcessing, canonical_json
from libs.runtime.logging import get_logger
from services.hospital_node.access.costs import NOTHING
from services.hospital_node.access.domain import LedgerKind, NewEntry, Study
from services.hospital_node.access.model_use import released_model
from services.hospital_node.access.ports import AccessStore, Unit

EVERY_S = 600.0

log = get_logger(__name__)


class Parties(Protocol):
    """The three parties, for counts."""

    async def model_use(self, party: PartyId, model_id: str) -> Mapping[str, int]:
        """Images by asker. Raises Unavailable, NotFound, PermissionDenied."""
        ...


def enter_counts(unit: Unit, *, study: Study, counts: Mapping[str, int]) -> int:
    """Enter what is new since the last time; how many entries that were.

    A prediction is computed from the released model alone, which admission has paid for: it costs nothing.
    """
    known: Counter[str] = Counter()
    for entry in unit.entries(dataset_name=study.dataset_name):
        if entry.line.kind is LedgerKind.PREDICTION and entry.line.study_id == study.study_id:
            known[entry.line.consumer] += entry.line.count
    entered = 0
    for asker, count in sorted(counts.items()):
        if count > known[asker]:
            unit.enter(
                NewEntry(
                    LedgerKind.PREDICTION,
                    study.dataset_name,
                    asker,
                    NOTHING,
                    event=canonical_json(PostProcessing()),
                    approval_id=study.approval_id,
                    study_id=study.study_id,
                    count=count - known[asker],
                )
            )
            entered += 1
    return entered


class PredictionReader:
    """Asks the parties every ten minutes. Each is in every prediction: the largest count is believed."""

    def __init__(self, *, store: AccessStore, parties: Parties, every_s: float = EVERY_S) -> None:
        self._store, self._parties, self._every_s = store, parties, every_s

    async def run(self) -> None:
        """For ever; only cancelling ends it."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.read()

    async def read(self) -> None:
        """Once, for every study that was ever admitted here."""
        studies = await self._store.run(lambda unit: [s for s in unit.studies() if s.approval_id])
        for study in studies:
            counts = await self._counts(released_model(study.study_id))
            if counts:
                await self._store.run(partial(enter_counts, study=study, counts=counts))

    async def _counts(self, model_id: str) -> Mapping[str, int]:
        largest: Counter[str] = Counter()
        for party in PARTIES:
            try:
                largest |= Counter(await self._parties.model_use(party, model_id))
            except TrefoilError as error:
                log.debug("model_use_not_read", model=model_id, party=party, code=error.code)
        return largest
