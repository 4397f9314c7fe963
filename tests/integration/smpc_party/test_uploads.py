"""What a party refuses to store, and that it then has stored nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionDenied,
    StorageFull,
    TooLarge,
    TrefoilError,
)
from libs.core.ids import PartyId
from libs.mpc.ring import Ring
from libs.rpc import share_client
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import translated
from libs.rpc.identity import COORDINATOR, Identity, Kind
from tests.fakes.party_rig import (
    CLINIC,
    HOSPITALS,
    SCIENTIST,
    STUDY,
    PartyRig,
    contribution_ref,
    metrics_ref,
    model_ref,
    open_request,
)

LENGTH = 3000
P0 = PartyId(0)
VECTOR = np.arange(LENGTH, dtype=np.uint32)
DATA = VECTOR.tobytes()
MODEL = f"{STUDY}/v0"


def kept(rig: PartyRig, party: PartyId = P0) -> int:
    """Files in the party's store, finished or not."""
    folder = rig.folder / f"party-{party}"
    return len([*(folder / "shares").iterdir(), *(folder / "incoming").iterdir()])


def header(**fields: Any) -> types_pb2.ShareHeader:
    defaults: dict[str, Any] = {
        "upload_id": "upload-1",
        "vector": model_ref(MODEL),
        "ring": types_pb2.RING_32,
        "length": LENGTH,
    }
    if "seed" not in fields:
        defaults["vector_sha256"] = hashlib.sha256(DATA).digest()
    return types_pb2.ShareHeader(**{**defaults, **fields})


async def register(rig: PartyRig) -> None:
    request = party_pb2.RegisterModelRequest(
        model_id=MODEL,
        ring=types_pb2.RING_32,
        length=LENGTH,
        dealer_identity=SCIENTIST.uri,
        reader_identities=[HOSPITALS[0].uri],
    )
    await rig.tell_all("RegisterModel", request)


async def put(
    rig: PartyRig,
    head: types_pb2.ShareHeader,
    *chunks: bytes,
    caller: Identity = SCIENTIST,
    party: PartyId = P0,
) -> bool:
    """One upload to one party, just as given; whether it had been stored before."""

    async def requests() -> AsyncIterator[party_pb2.PutSharesRequest]:
        yield party_pb2.PutSharesRequest(header=head)
        for chunk in chunks:
            yield party_pb2.PutSharesRequest(chunk=chunk)

    stub = await rig.stub(P0, caller)
    with translated():
        return bool((await stub.PutShares(requests())).already_stored)


async def test_a_vector_comes_back_and_a_seed_comes_back_as_a_vector(rig: PartyRig) -> None:
    await register(rig)
    vector = np.random.default_rng(3).integers(0, 2**32, LENGTH, dtype=np.uint32)
    await rig.deal(vector, model_ref(MODEL), SCIENTIST)
    np.testing.assert_array_equal(await rig.fetch(model_ref(MODEL), HOSPITALS[0]), vector)


async def test_a_vector_of_many_chunks_comes_back(rig: PartyRig) -> None:
    vector = np.random.default_rng(4).integers(0, 2**64, 700_001, dtype=np.uint64)
    await rig.deal_model(vector, model_id=MODEL)
    fetched = await rig.fetch(model_ref(MODEL), HOSPITALS[0], ring=Ring.RING_64)
    np.testing.assert_array_equal(fetched, vector)


BAD_UPLOADS: dict[str, tuple[types_pb2.ShareHeader, tuple[bytes, ...], type[TrefoilError]]] = {
    "too few bytes": (header(), (DATA[:-4],), InvalidInput),
    "too many bytes": (header(), (DATA, b"1234"), InvalidInput),
    "half an element": (header(), (DATA[:-1],), InvalidInput),
    "no bytes": (header(), (), InvalidInput),
    "an empty chunk": (header(), (DATA, b""), InvalidInput),
    "another length": (header(length=LENGTH - 1), (DATA[:-4],), InvalidInput),
    "another ring": (header(ring=types_pb2.RING_64), (DATA, DATA), InvalidInput),
    "no ring": (header(ring=types_pb2.RING_UNSPECIFIED), (DATA,), InvalidInput),
    "another hash": (header(vector_sha256=bytes(32)), (DATA,), InvalidInput),
    "a short hash": (header(vector_sha256=bytes(31)), (DATA,), InvalidInput),
    "a short seed": (header(seed=bytes(15)), (), InvalidInput),
    "chunks after a seed": (header(seed=bytes(16)), (DATA,), InvalidInput),
    "a chunk over 1 MiB": (header(), (bytes((1 << 20) + 1),), TooLarge),
    "no upload id": (header(upload_id=""), (DATA,), InvalidInput),
    "an upload id that is a path": (header(upload_id="../x"), (DATA,), InvalidInput),
    "no vector": (header(vector=types_pb2.VectorRef()), (DATA,), InvalidInput),
    "metrics": (header(vector=metrics_ref(1)), (DATA,), InvalidInput),
    "an unregistered model": (header(vector=model_ref("other/v0")), (DATA,), NotFound),
    "an unopened round": (header(vector=contribution_ref(1)), (DATA,), NotFound),
}


BROKE_OFF = {"too few bytes", "half an element"}
"""What a broken line looks like: the beginning waits for its rest."""


@pytest.mark.parametrize("name", BAD_UPLOADS)
async def test_a_bad_upload_is_refused_and_leaves_nothing(ready_rig: PartyRig, name: str) -> None:
    head, chunks, error = BAD_UPLOADS[name]
    with pytest.raises(error):
        await put(ready_rig, head, *chunks)
    assert kept(ready_rig) == (name in BROKE_OFF)


async def test_only_the_dealer_deals_a_model(ready_rig: PartyRig) -> None:
    with pytest.raises(PermissionDenied, match="to deal"):
        await put(ready_rig, header(), DATA, caller=HOSPITALS[0])
    for stranger in (CLINIC, COORDINATOR):
        with pytest.raises((PermissionDenied, TrefoilError)):
            await put(ready_rig, header(), DATA, caller=stranger)
    assert kept(ready_rig) == 0


@pytest.fixture
async def ready_rig(rig: PartyRig) -> PartyRig:
    await register(rig)
    return rig


async def test_only_participants_contribute_and_only_while_the_round_is_open(rig: PartyRig) -> None:
    await rig.deal_model(VECTOR, model_id=MODEL)
    request = open_request(1, length=LENGTH - 4)
    del request.participants[2:]
    request.participants[1].weight.CopyFrom(types_pb2.Fraction(numerator=1, denominator=2))
    request.base_model_id = ""
    await rig.tell_all("OpenRound", request)
    with pytest.raises(PermissionDenied, match="does not take part"):
        await rig.deal(VECTOR, contribution_ref(1), HOSPITALS[2])
    with pytest.raises(PermissionDenied):
        await rig.deal(VECTOR, contribution_ref(1), SCIENTIST)
    with pytest.raises(InvalidInput, match="takes"):
        await rig.deal(VECTOR[:-1], contribution_ref(1), HOSPITALS[0])
    await rig.deal(VECTOR, contribution_ref(1), HOSPITALS[0])


async def test_a_model_is_dealt_once(rig: PartyRig) -> None:
    await register(rig)
    assert await put(rig, header(), DATA) is False
    assert await put(rig, header(), DATA) is True
    with pytest.raises(AlreadyExists):
        await put(rig, header(upload_id="upload-2"), DATA)
    assert kept(rig) == 1


async def test_the_same_upload_twice_at_once_is_stored_once(rig: PartyRig) -> None:
    await register(rig)
    answers = await asyncio.gather(*(put(rig, header(), DATA) for _ in range(4)))
    assert sorted(answers) == [False, True, True, True]
    assert kept(rig) == 1


async def test_nobody_but_readers_fetches(rig: PartyRig) -> None:
    await register(rig)
    with pytest.raises(FailedPrecondition, match="not dealt"):
        await rig.fetch(model_ref(MODEL), HOSPITALS[0])
    await rig.deal(VECTOR, model_ref(MODEL), SCIENTIST)
    for caller in (HOSPITALS[1], SCIENTIST):
        with pytest.raises(PermissionDenied):
            await rig.fetch(model_ref(MODEL), caller)


@pytest.mark.parametrize(
    "identity", ["", "spiffe://trefoil.local/party/7", Identity(Kind.CLIENT, "x").uri + "/y"]
)
async def test_a_model_of_a_malformed_identity_is_refused(rig: PartyRig, identity: str) -> None:
    request = party_pb2.RegisterModelRequest(
        model_id=MODEL, ring=types_pb2.RING_32, length=4, dealer_identity=identity
    )
    with pytest.raises(InvalidInput):
        await rig.tell(P0, "RegisterModel", request)


@pytest.mark.parametrize("slow", ["put_model_share", "model"])
async def test_a_party_that_does_not_answer_is_not_waited_for_for_ever(
    rig: PartyRig, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    await register(rig)
    if slow == "model":
        await rig.deal(VECTOR, model_ref(MODEL), SCIENTIST)
        transfer = rig.fetch(model_ref(MODEL), HOSPITALS[0])
    else:
        transfer = rig.deal(VECTOR, model_ref(MODEL), SCIENTIST)
    monkeypatch.setattr(share_client, "SHORTEST_S", 0.4)
    index, go_on = rig.parties[P0]._index, threading.Event()
    monkeypatch.setattr(index, slow, lambda *_: go_on.wait(60) and None)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(DeadlineExceeded):
                await transfer
    finally:
        go_on.set()


# ---------------------------------------------------------------- full disks


async def test_a_quota_is_kept_and_gives_room_back(keys: Path, tmp_path: Path) -> None:
    async with PartyRig(keys, tmp_path, {"quota_bytes": len(DATA) + 1000}) as rig:
        await register(rig)
        with pytest.raises(InvalidInput):
            await put(rig, header(vector_sha256=bytes(32)), DATA)
        await put(rig, header(), DATA)
        request = party_pb2.RegisterModelRequest(
            model_id="other/v0", ring=types_pb2.RING_32, length=LENGTH, dealer_identity=SCIENTIST.uri
        )
        await rig.tell_all("RegisterModel", request)
        with pytest.raises(StorageFull, match="make room"):
            await put(rig, header(vector=model_ref("other/v0")), DATA)
        assert kept(rig) == 1


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own for `folder`, when we may mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs privileges")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def small_files(limit_bytes: int) -> Iterator[None]:
    """Files that cannot grow beyond the limit: another way in which a disk refuses to take more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_keeps_nothing_and_serves_what_is_there(keys: Path, tmp_path: Path) -> None:
    big = np.zeros(2_000_000, dtype=np.uint32)
    with small_disk(tmp_path / "party-0", "3M"):
        async with PartyRig(keys, tmp_path) as rig:
            await register(rig)
            await rig.deal(VECTOR, model_ref(MODEL), SCIENTIST)
            head = await _register_big(rig, big)
            for _ in range(2):
                with pytest.raises(StorageFull, match="nothing was kept"):
                    await put(rig, head, *_chunks(big))
            assert kept(rig) == 1
            np.testing.assert_array_equal(await rig.fetch(model_ref(MODEL), HOSPITALS[0]), VECTOR)


async def test_a_file_that_cannot_grow_is_a_full_disk(rig: PartyRig) -> None:
    big = np.zeros(2_000_000, dtype=np.uint32)
    head = await _register_big(rig, big)
    with small_files(3_000_000), pytest.raises(StorageFull):
        await put(rig, head, *_chunks(big))
    assert kept(rig) == 0
    assert await put(rig, head, *_chunks(big)) is False


async def _register_big(rig: PartyRig, vector: np.ndarray) -> types_pb2.ShareHeader:
    request = party_pb2.RegisterModelRequest(
        model_id="big/v0", ring=types_pb2.RING_32, length=len(vector), dealer_identity=SCIENTIST.uri
    )
    await rig.tell_all("RegisterModel", request)
    digest = hashlib.sha256(vector.tobytes()).digest()
    return header(vector=model_ref("big/v0"), length=len(vector), vector_sha256=digest)


def _chunks(vector: np.ndarray) -> list[bytes]:
    data = vector.tobytes()
    return [data[i : i + (1 << 20)] for i in range(0, len(data), 1 << 20)]


async def until(condition: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition is a folder's content
            await asyncio.sleep(0.01)
