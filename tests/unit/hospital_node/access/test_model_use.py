"""Predictions: who may ask a released model is told to the three parties until all have it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from libs.core.errors import NotFound, PermissionDenied, Unavailable
from libs.core.ids import PartyId
from libs.rpc.identity import Identity, Kind
from services.hospital_node.access.costs import NOTHING
from services.hospital_node.access.domain import LedgerKind, Standing
from services.hospital_node.access.model_counts import PredictionReader
from services.hospital_node.access.model_use import ModelUseTeller, UseRules
from services.hospital_node.access.requests import Decision
from tests.fakes.access import DANA, AccessRig
from tests.fakes.hospital_ports import NOW, STUDY

MODEL = f"{STUDY}/released"
CLINIC = Identity(Kind.CLIENT, "clinic")


@dataclass
class RememberingParties:
    """Take what they are told; those in `away` do not answer."""

    away: set[int] = field(default_factory=set)
    told: list[tuple[int, UseRules]] = field(default_factory=list)
    ahead: int = 0
    refusal: Exception | None = None
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def set_model_use(self, party: PartyId, rules: UseRules) -> int:
        if party in self.away:
            raise Unavailable("The party is down.")
        if self.refusal is not None:
            raise self.refusal
        self.told.append((party, rules))
        if self.meanwhile is not None:
            now, self.meanwhile = self.meanwhile, None
            await now()
        return max(self.ahead, rules.revision)


@pytest.fixture
def rig(light_rig: AccessRig) -> AccessRig:
    """Both databases are in the other files."""
    return light_rig


@pytest.fixture
async def parties(rig: AccessRig) -> RememberingParties:
    """After a study that this hospital took part in."""
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.decide(STUDY)
    await rig.access.study_ended(STUDY)
    return RememberingParties()


@pytest.fixture
def teller(rig: AccessRig, parties: RememberingParties) -> ModelUseTeller:
    return ModelUseTeller(store=rig.store, parties=parties)


async def ask(
    rig: AccessRig, request_id: str = "ask-1", *, uses: int = 10, signer: Identity = CLINIC
) -> None:
    await rig.access.access_asked(
        rig.people.asked(
            request_id,
            signer=signer,
            purpose="prediction",
            model_id=MODEL,
            epsilon="0",
            uses=uses,
        )
    )


async def test_an_approved_asker_is_told_to_all_three_once(
    rig: AccessRig, teller: ModelUseTeller, parties: RememberingParties
) -> None:
    await ask(rig)
    assert rig.listener.told[-1].standing is Standing.PENDING
    assert await teller.tell()
    assert parties.told == []
    tomorrow = NOW + timedelta(days=1)
    await rig.decide("ask-1", Decision(True, uses=5, expires_at=tomorrow))
    assert await teller.tell()
    assert await teller.tell()
    assert [party for party, _ in parties.told] == [0, 1, 2]
    [rule] = parties.told[0][1].rules
    assert (rule.asker, rule.allowed, rule.max_predictions, rule.expires_at) == (
        CLINIC.uri,
        True,
        5,
        tomorrow,
    )
    assert rule.approval_id == (await rig.approval_of("ask-1")).approval_id
    assert parties.told[0][1].model_id == MODEL
    assert [entry for entry in await rig.entries() if entry.line.study_id != STUDY] == []


async def test_revoking_is_told_as_a_later_revision_and_forbids_by_name(
    rig: AccessRig, teller: ModelUseTeller, parties: RememberingParties
) -> None:
    await ask(rig)
    await rig.decide("ask-1", Decision(True))
    await teller.tell()
    await rig.revoke("ask-1")
    await teller.tell()
    before, after = parties.told[0][1], parties.told[-1][1]
    assert after.revision > before.revision
    assert [(rule.asker, rule.allowed) for rule in after.rules] == [(CLINIC.uri, False)]


async def test_revoking_what_a_model_was_trained_under_forbids_it_to_everybody(
    rig: AccessRig, teller: ModelUseTeller, parties: RememberingParties
) -> None:
    await ask(rig)
    await rig.decide("ask-1", Decision(True))
    await rig.revoke(STUDY)
    assert await teller.tell()
    rules = parties.told[-1][1].rules
    assert [(rule.asker, rule.allowed) for rule in rules] == [(CLINIC.uri, False), ("*", False)]


@pytest.mark.parametrize(("refusal", "again"), [(NotFound("none"), True), (PermissionDenied("out"), False)])
async def test_a_model_that_is_not_released_is_told_of_later_and_one_without_us_never(
    rig: AccessRig,
    teller: ModelUseTeller,
    parties: RememberingParties,
    refusal: Exception,
    again: bool,
) -> None:
    await rig.revoke(STUDY)
    parties.refusal = refusal
    assert await teller.tell()
    assert parties.told == []
    parties.refusal = None
    assert await teller.tell()
    assert len(parties.told) == (3 if again else 0)


async def test_a_party_that_was_away_is_told_when_it_is_back_and_no_other_again(
    rig: AccessRig, teller: ModelUseTeller, parties: RememberingParties
) -> None:
    await ask(rig)
    await rig.decide("ask-1", Decision(True))
    parties.away = {1}
    assert not await teller.tell()
    assert [party for party, _ in parties.told] == [0, 2]
    parties.away = set()
    assert await teller.tell()
    assert [party for party, _ in parties.told] == [0, 2, 1]


async def test_what_changes_while_it_is_told_is_told_again_to_all(
    rig: AccessRig, teller: ModelUseTeller, parties: RememberingParties
) -> None:
    await ask(rig)
    await rig.decide("ask-1", Decision(True))
    parties.meanwhile = lambda: rig.revoke("ask-1")
    await teller.tell()
    await teller.tell()
    after = {party for party, rules in parties.told if not rules.rules[0].allowed}
    assert after == {0, 1, 2}


async def test_a_party_with_a_later_revision_is_told_a_still_later_one(
    rig: AccessRig, teller: ModelUseTeller, parties: RememberingParties
) -> None:
    await ask(rig)
    await rig.decide("ask-1", Decision(True))
    parties.ahead = 7
    assert not await teller.tell()
    assert await teller.tell()
    assert parties.told[-1][1].revision == 8


async def test_every_asker_has_the_rule_of_its_newest_approval(
    rig: AccessRig, teller: ModelUseTeller, parties: RememberingParties
) -> None:
    for request_id, uses, signer in (("ask-1", 5, CLINIC), ("ask-2", 7, DANA), ("ask-3", 9, CLINIC)):
        await ask(rig, request_id, uses=uses, signer=signer)
        await rig.decide(request_id, Decision(True))
    await teller.tell()
    assert [(rule.asker, rule.max_predictions) for rule in parties.told[-1][1].rules] == [
        (CLINIC.uri, 9),
        (DANA.uri, 7),
    ]


async def test_a_running_teller_hears_of_changes_and_tries_again_by_itself(
    rig: AccessRig, parties: RememberingParties
) -> None:
    teller = ModelUseTeller(store=rig.store, parties=parties, retry_s=0.01)
    parties.away = {0}
    running = asyncio.create_task(teller.run())
    await ask(rig)
    await rig.decide("ask-1", Decision(True))
    teller.changed()
    async with asyncio.timeout(20):
        while len(parties.told) < 2:  # noqa: ASYNC110 - the fake sets no event
            await asyncio.sleep(0.01)
        parties.away = set()
        while len(parties.told) < 3:  # noqa: ASYNC110 - the fake sets no event
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_hospital_speaks_only_for_models_that_its_data_is_in(rig: AccessRig) -> None:
    await ask(rig)  # no study was admitted here
    assert rig.listener.told[-1].standing is Standing.DENIED


@dataclass
class CountingParties:
    """Each says how often the model was asked; those that are not there do not answer."""

    counts: dict[int, dict[str, int]]

    async def model_use(self, party: PartyId, model_id: str) -> dict[str, int]:
        if party not in self.counts or model_id != MODEL:
            raise Unavailable("The party is down.")
        return self.counts[party]


async def predictions(rig: AccessRig) -> list[tuple[str, int]]:
    entries = [entry.line for entry in await rig.entries() if entry.line.kind is LedgerKind.PREDICTION]
    assert all(line.cost == NOTHING and line.study_id == STUDY for line in entries)
    return [(line.consumer, line.count) for line in entries]


async def test_predictions_are_entries_that_cost_nothing_and_count_what_is_new(
    rig: AccessRig, parties: RememberingParties
) -> None:
    there = CountingParties({0: {"ada": 3}, 2: {"ada": 2, "ben": 1}})
    reader = PredictionReader(store=rig.store, parties=there)
    await reader.read()
    await reader.read()
    assert await predictions(rig) == [("ada", 3), ("ben", 1)]
    there.counts[1] = {"ada": 10}
    await reader.read()
    there.counts = {}
    await reader.read()
    assert await predictions(rig) == [("ada", 3), ("ben", 1), ("ada", 7)]
