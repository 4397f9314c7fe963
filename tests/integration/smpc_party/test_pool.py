"""Material made ahead by three parties over mTLS: used once, kept over a restart, never in clear."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.ids import PARTIES, PartyId, new_id
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.predict_client import Prediction
from services.smpc_party import filling
from services.smpc_party.adapters.sealed_folder import SealedFolder
from services.smpc_party.material import Shelf
from services.smpc_party.settings import PoolSettings
from tests.fakes.party_rig import PartyRig, SmallModel

MODEL = "study-1/released"
P0, P1, P2 = PARTIES
POOL = PoolSettings(low_watermark=2, high_watermark=2)
SENSELESS: list[dict[str, Any]] = [
    {"computation_id": "deal-x", "model_id": "no-such-model", "batch": 1},
    {"computation_id": "deal-x", "model_id": MODEL, "batch": 0},
    {"computation_id": "deal-x", "model_id": MODEL, "batch": 100_000},
    {"computation_id": "deal/x", "model_id": MODEL, "batch": 1},
    {"computation_id": "deal-x", "model_id": "../../etc", "batch": 1},
]


@pytest.fixture
async def rig(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PartyRig]:
    monkeypatch.setattr(filling, "LOOK_S", 0.2)  # else each test begins with a wait of five seconds
    async with PartyRig(keys, tmp_path, {"pool": POOL}) as rig:
        yield rig


@pytest.fixture
async def ready(rig: PartyRig, small_model: SmallModel) -> PartyRig:
    """Three parties that hold a released model and have filled their shelves for it."""
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
    await full(rig)
    return rig


async def until(condition: Callable[[], bool], *, what: Callable[[], str], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, what()
        await asyncio.sleep(0.02)


def level(rig: PartyRig, party: PartyId, *, dealer: int | None = None, batch: int = 1) -> int:
    """Pieces that `party` counts on the shelf of `dealer`, by default its own."""
    turn = party if dealer is None else dealer
    return rig.parties[party]._pool.level(Shelf(MODEL, batch, Roles.rotated(turn)))


def count(rig: PartyRig, party: PartyId, name: str) -> int:
    return sum(getattr(level.count, name) for level in rig.parties[party]._pool.levels())


async def full(rig: PartyRig, *, batch: int = 1) -> None:
    await until(
        lambda: all(level(rig, p, dealer=d, batch=batch) == 2 for p in PARTIES for d in range(3)),
        what=lambda: f"levels {[[level(rig, p, dealer=d, batch=batch) for d in range(3)] for p in PARTIES]}",
    )


async def ask(rig: PartyRig, model: SmallModel, *, turn: int = 0, batch: int = 1) -> Prediction:
    """One prediction, which must be right."""
    assignment = await rig.open_prediction(MODEL, batch=batch, turn=turn)
    result = await (await rig.client()).predict(assignment, model.plan, model.pixels(batch))
    np.testing.assert_allclose(result.logits, model.logits(batch), atol=0.02)
    cost = model.plan.cost(batch)
    assert [report.rounds for report in result.reports] == [cost.rounds] * 2
    assert [report.bytes_sent_online for report in result.reports] == [cost.online_bytes_each_way] * 2
    assert [report.bytes_received_offline for report in result.reports] == [0, cost.dealt_bytes]
    return result


def dealt_ahead(result: Prediction) -> list[bool]:
    return [report.dealt_ahead for report in result.reports]


async def test_a_model_gets_material_before_anybody_asks_and_predictions_use_it(
    ready: PartyRig, small_model: SmallModel
) -> None:
    for turn in range(3):
        assert dealt_ahead(await ask(ready, small_model, turn=turn)) == [True, True]
    await until(
        lambda: [count(ready, p, "taken") for p in PARTIES] == [3, 3, 3], what=lambda: "not all counted"
    )
    await full(ready)  # it is filled up again


async def test_an_empty_shelf_deals_on_the_spot_and_a_new_batch_size_gets_a_shelf(
    ready: PartyRig, small_model: SmallModel
) -> None:
    assert dealt_ahead(await ask(ready, small_model, batch=3)) == [False, False]
    await full(ready, batch=3)
    assert dealt_ahead(await ask(ready, small_model, batch=3)) == [True, True]


async def test_a_piece_leaves_the_disk_with_its_use(ready: PartyRig, small_model: SmallModel) -> None:
    for party in PARTIES:
        await ready.parties[party]._filler.stop()
    folders = {party: ready.folder / f"party-{party}" / "material" for party in PARTIES}
    before = {party: {f.name for f in folders[party].iterdir()} for party in PARTIES}
    assert [sum(name.startswith("deal-") for name in before[party]) for party in PARTIES] == [4, 4, 4]
    await ask(ready, small_model, turn=0)
    gone = {party: before[party] - {f.name for f in folders[party].iterdir()} for party in PARTIES}
    assert gone[P1] == gone[P2]
    assert len(gone[P1]) == 1
    assert gone[P0] == set()  # the dealer keeps a record, not a file


async def test_material_survives_a_restart_of_all_three_parties(
    ready: PartyRig, small_model: SmallModel
) -> None:
    for party in PARTIES:
        await ready.stop(party)
    ready.overrides["pool"] = PoolSettings(high_watermark=0)  # nothing new is made
    for party in PARTIES:
        await ready.start(party)
    for turn in range(6):
        assert dealt_ahead(await ask(ready, small_model, turn=turn)) == [True, True]
    assert dealt_ahead(await ask(ready, small_model, turn=0)) == [False, False]
    await until(
        lambda: [count(ready, p, "taken") for p in PARTIES] == [6, 6, 6], what=lambda: "not all counted"
    )


@pytest.mark.slow
async def test_a_pool_of_a_hundred_survives_a_restart(
    keys: Path, tmp_path: Path, small_model: SmallModel
) -> None:
    """34 pieces at each of three dealers; every one is used once, and right."""
    pool = PoolSettings(low_watermark=34, high_watermark=34)
    async with PartyRig(keys, tmp_path, {"pool": pool}) as rig:
        await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
        await until(
            lambda: all(level(rig, p, dealer=d) == 34 for p in PARTIES for d in range(3)),
            what=lambda: "the shelves were not filled",
            timeout_s=120,
        )
        for party in PARTIES:
            await rig.stop(party)
        rig.overrides["pool"] = PoolSettings(high_watermark=0)
        for party in PARTIES:
            await rig.start(party)
        for turn in range(100):
            assert dealt_ahead(await ask(rig, small_model, turn=turn)) == [True, True]
        for party in PARTIES:
            with sqlite3.connect(rig.folder / f"party-{party}" / "pool.db") as database:
                states = dict(database.execute("SELECT state, count(*) FROM pieces GROUP BY state"))
            assert states == {"taken": 100, "ready": 2}


async def test_what_one_evaluator_lost_is_burned_by_all_and_the_next_piece_is_taken(
    ready: PartyRig, small_model: SmallModel
) -> None:
    for party in PARTIES:
        await ready.parties[party]._filler.stop()
    shelf = Shelf(MODEL, 1, Roles.rotated(0))
    lost = ready.parties[P2]._piece_index.take_oldest(shelf)
    assert lost is not None
    assert dealt_ahead(await ask(ready, small_model, turn=0)) == [True, True]
    await until(
        lambda: [count(ready, party, "burned") for party in (P0, P1)] == [1, 1],
        what=lambda: "it was not burned",
    )
    assert dealt_ahead(await ask(ready, small_model, turn=0)) == [False, False]


async def test_a_damaged_piece_burns_its_prediction_alone(ready: PartyRig, small_model: SmallModel) -> None:
    for party in PARTIES:
        await ready.stop(party)
    ready.overrides["pool"] = PoolSettings(high_watermark=0)
    first = min((ready.folder / "party-1" / "material").glob("deal-*"), key=lambda f: f.stat().st_mtime)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    for party in PARTIES:
        await ready.start(party)
    outcomes = []
    for turn in range(6):
        try:
            outcomes.append(dealt_ahead(await ask(ready, small_model, turn=turn)))
        except Exception as error:
            outcomes.append(str(error))
    assert sum(outcome == [True, True] for outcome in outcomes) == 5
    assert any("damaged" in outcome for outcome in outcomes if isinstance(outcome, str))


async def test_no_piece_is_kept_in_clear(ready: PartyRig) -> None:
    """Of a hundred runs of 16 bytes of each piece in memory, none is in any file."""
    cached = ready.parties[P1]._pool._cache.pieces
    assert len(cached) == 4
    files = b"".join(f.read_bytes() for f in (ready.folder / "party-1").rglob("*") if f.is_file())
    for material, _size in cached.values():
        assert material.input_seed not in files
        for value in material.of_step.values():
            array = value if isinstance(value, np.ndarray) else value.dealt
            content = array.tobytes()
            for start in range(0, min(len(content), 1600) - 16, 16):
                assert content[start : start + 16] not in files


async def test_predictions_at_once_never_share_a_piece(ready: PartyRig, small_model: SmallModel) -> None:
    results = await asyncio.gather(*(ask(ready, small_model, turn=turn) for turn in range(12)))
    ahead = sum(all(dealt_ahead(result)) for result in results)
    assert ahead >= 6  # what was there; the filler may have added some
    await until(
        lambda: [count(ready, p, "taken") for p in PARTIES] == [ahead] * 3, what=lambda: "not all counted"
    )
    for party in PARTIES:
        with sqlite3.connect(ready.folder / f"party-{party}" / "pool.db") as database:
            states = dict(database.execute("SELECT state, count(*) FROM pieces GROUP BY state"))
        assert states["taken"] == ahead


async def test_what_the_dealer_does_not_list_twice_is_burned(
    ready: PartyRig, small_model: SmallModel
) -> None:
    """A piece whose dealer crashed before it was confirmed must not lie at the evaluators for ever."""
    shelf = Shelf(MODEL, 1, Roles.rotated(0))
    forgotten = ready.parties[P0]._piece_index.take_oldest(shelf)
    assert forgotten is not None
    ready.parties[P0]._pool._ready[shelf].pop(forgotten.piece_id)
    for _ in range(3):
        await ask(ready, small_model, turn=0)
        await until(lambda: level(ready, P0) == 2, what=lambda: "the shelf was not filled again")
    names = [set(ready.parties[party]._pool._ready[shelf]) for party in PARTIES]
    assert forgotten.piece_id not in names[1] | names[2]
    await until(
        lambda: [count(ready, party, "burned") for party in (P1, P2)] == [1, 1],
        what=lambda: "it was not burned",
    )


async def test_the_level_is_told_to_those_who_may_ask(ready: PartyRig) -> None:
    answer = await ready.tell(P0, "DescribePool", party_pb2.DescribePoolRequest(model_id=MODEL))
    assert {(shelf.dealer, shelf.ready, shelf.made, shelf.burned) for shelf in answer.shelves} == {
        (dealer, 2, 2, 0) for dealer in range(3)
    }
    assert all((shelf.stored_bytes > 0) == (shelf.dealer != P0) for shelf in answer.shelves)
    none = await ready.tell(P0, "DescribePool", party_pb2.DescribePoolRequest(model_id="other"))
    assert not none.shelves


async def test_a_senseless_proposal_is_refused_and_the_link_goes_on(
    ready: PartyRig, small_model: SmallModel
) -> None:
    party = ready.parties[P0]
    await party._filler.stop()
    for proposal in SENSELESS:
        await party.network.propose(**proposal)
        await asyncio.sleep(0.2)
        assert ready.parties[P1]._filler._following == {}, proposal
    assert dealt_ahead(await ask(ready, small_model, turn=1)) == [True, True]


def test_a_full_folder_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    from libs.core.errors import StorageFull
    from libs.core.secret import Secret

    folder = SealedFolder(tmp_path / "material", Secret(bytes(32)), max_bytes=1000)
    folder.save("a", [memoryview(b"x" * 500)], size_bytes=500)
    with pytest.raises(StorageFull, match="full"):
        folder.save("b", [memoryview(b"x" * 500)], size_bytes=500)
    assert [f.name for f in (tmp_path / "material").iterdir()] == ["a"]
    assert folder.load("a") == b"x" * 500
    assert new_id("deal") not in folder.clean(["a"])
