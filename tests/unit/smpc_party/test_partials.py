"""Uploads that broke off: the rest is enough, and nothing stays for ever."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.errors import InvalidInput, StorageFull, TooLarge, Unavailable
from services.smpc_party.adapters import sealed_file
from services.smpc_party.vectors import ModelVector
from tests.fakes.upload_desk import DEALER, Desk, rest, upload_of

VALUES = np.random.default_rng(5).integers(0, 2**32, 700_000, dtype=np.uint32)  # 2.67 pieces of the file
DATA = VALUES.tobytes()
UPLOAD = upload_of(VALUES)
MIB = 1 << 20
CHUNKS = [DATA[at : at + MIB] for at in range(0, len(DATA), MIB)]
SIZE = sealed_file.sealed_size(len(DATA))


def desk_in(folder: Path, **options: Any) -> Desk:
    return Desk(folder, **{"length": len(VALUES), "quota_bytes": 2 * SIZE, **options})


async def check_stored(desk: Desk) -> None:
    _, values = await desk.desk.get(ModelVector("m"), DEALER)
    np.testing.assert_array_equal(values, VALUES)
    assert desk.files() == desk.index.share_names()
    assert desk.store._used_bytes == SIZE


async def test_an_upload_that_breaks_off_three_times_goes_on_each_time(tmp_path: Path) -> None:
    desk, sent, at = desk_in(tmp_path), 0, 0
    for end in (1000, MIB + 7, 2 * MIB + 300_000):
        pieces = [DATA[start : min(start + MIB, end)] for start in range(at, end, MIB)]
        await desk.break_off(rest(UPLOAD, at), *pieces)
        sent += sum(map(len, pieces))
        at = await desk.received(UPLOAD)
        assert at == end, "every byte that arrived counts"
    assert await desk.put(rest(UPLOAD, at), DATA[at:]) is False
    assert sent + len(DATA) - at == len(DATA)
    await check_stored(desk)


async def test_a_party_that_is_killed_goes_on_from_the_last_piece_that_it_sealed(tmp_path: Path) -> None:
    await desk_in(tmp_path).break_off(UPLOAD, *CHUNKS[:2], CHUNKS[2][:1000])
    desk = desk_in(tmp_path)
    at = await desk.received(UPLOAD)
    assert at == 2 * MIB
    assert await desk.put(rest(UPLOAD, at), DATA[at:]) is False
    await check_stored(desk)


async def test_what_was_torn_or_changed_on_the_disk_is_sent_again(tmp_path: Path) -> None:
    await desk_in(tmp_path).break_off(UPLOAD, *CHUNKS[:2], CHUNKS[2][:1000])
    (part,) = [path for path in (tmp_path / "incoming").iterdir() if not path.suffix]
    content = bytearray(part.read_bytes())
    content[sealed_file.OVERHEAD_BYTES + MIB + 16 + 9] ^= 1  # in the second piece
    part.write_bytes(content)
    desk = desk_in(tmp_path)
    assert await desk.received(UPLOAD) == MIB
    assert await desk.put(rest(UPLOAD, MIB), *CHUNKS[1:]) is False
    await check_stored(desk)


async def test_what_is_kept_is_encrypted(tmp_path: Path) -> None:
    desk = desk_in(tmp_path)
    await desk.break_off(UPLOAD, *CHUNKS[:2])
    for path in (tmp_path / "incoming").iterdir():
        assert DATA[:64] not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


async def test_the_sum_of_a_resumed_upload_is_still_checked(tmp_path: Path) -> None:
    desk = desk_in(tmp_path)
    await desk.break_off(UPLOAD, CHUNKS[1])
    with pytest.raises(InvalidInput, match="SHA-256"):
        await desk.put(rest(UPLOAD, MIB), *CHUNKS[1:])
    assert desk.files() == set()
    assert desk.store._used_bytes == 0


@pytest.mark.parametrize("offset", [1, MIB - 1, MIB + 1, len(DATA), len(DATA) + 1])
async def test_an_upload_goes_on_from_nowhere_else(tmp_path: Path, offset: int) -> None:
    desk = desk_in(tmp_path)
    await desk.break_off(UPLOAD, CHUNKS[0])
    with pytest.raises(Unavailable, match="how far"):
        await desk.put(rest(UPLOAD, offset), DATA[offset : offset + MIB])
    assert await desk.received(UPLOAD) == MIB, "and loses nothing by asking"


@pytest.mark.parametrize("restart", [False, True], ids=["kept", "found"])
async def test_another_upload_takes_the_place_of_what_was_kept(tmp_path: Path, restart: bool) -> None:
    desk = desk_in(tmp_path, quota_bytes=SIZE)
    await desk.break_off(UPLOAD, CHUNKS[0], CHUNKS[1])
    if restart:
        desk = desk_in(tmp_path, quota_bytes=SIZE)
    other = upload_of(VALUES, "upload-2")
    assert await desk.received(other) == 0, "bytes of one upload are never another's"
    await desk.break_off(other, DATA[:1000])
    assert await desk.received(UPLOAD) == 0
    assert await desk.received(other) == 1000
    assert (
        await desk.put(rest(other, 1000), *(DATA[at : at + MIB] for at in range(1000, len(DATA), MIB)))
        is False
    )
    await check_stored(desk)


@pytest.mark.parametrize("changed", ["sha256", "length"])
async def test_a_header_that_changed_is_another_upload(tmp_path: Path, changed: str) -> None:
    desk = desk_in(tmp_path)
    await desk.break_off(UPLOAD, CHUNKS[0])
    if changed == "sha256":
        assert await desk.received(replace(UPLOAD, sha256=bytes(32))) == 0
    else:
        with pytest.raises(InvalidInput, match="takes"):
            await desk.received(replace(UPLOAD, length=len(VALUES) - 1))
    assert await desk.received(UPLOAD) == MIB


async def test_asking_ends_a_transfer_whose_line_only_looks_alive(tmp_path: Path) -> None:
    """A line that is cut without a word is noticed after half a minute; whoever asks has noticed before."""
    desk = desk_in(tmp_path)
    desk.desk._idle_s = 60.0
    began = asyncio.Event()

    async def silent() -> Any:
        yield CHUNKS[0]
        began.set()
        await asyncio.sleep(60)

    stuck = asyncio.create_task(desk.desk.put(UPLOAD, DEALER, silent()))
    await asyncio.wait_for(began.wait(), 10)
    async with asyncio.timeout(10):
        assert await desk.received(UPLOAD) == MIB
        assert await desk.put(rest(UPLOAD, MIB), *CHUNKS[1:]) is False
        with pytest.raises(Unavailable):
            await stuck
    await check_stored(desk)


async def test_what_is_kept_ends_after_its_time_also_where_a_party_restarted(tmp_path: Path) -> None:
    desk = desk_in(tmp_path, ttl_s=0.05)
    await desk.break_off(UPLOAD, CHUNKS[0], CHUNKS[1])
    await asyncio.sleep(0.1)
    assert desk.files() == set()
    assert desk.store._used_bytes == 0
    await desk_in(tmp_path).break_off(UPLOAD, CHUNKS[0], CHUNKS[1])
    desk = desk_in(tmp_path, ttl_s=0.3)
    desk.desk.start()
    assert desk.files() != set()
    await asyncio.sleep(0.4)
    assert desk.files() == set()
    assert desk.store._used_bytes == 0
    await desk_in(tmp_path).break_off(UPLOAD, CHUNKS[0], CHUNKS[1])
    await asyncio.sleep(0.1)
    assert desk_in(tmp_path, ttl_s=0.01).files() == set(), "too old when the party starts"


@pytest.mark.parametrize("restart", [False, True], ids=["kept", "found"])
async def test_what_is_kept_counts_in_the_quota_and_gives_way_to_what_comes(
    tmp_path: Path, restart: bool
) -> None:
    desk = desk_in(tmp_path, quota_bytes=SIZE)
    await desk.break_off(UPLOAD, CHUNKS[0], CHUNKS[1])
    if restart:
        desk = desk_in(tmp_path, quota_bytes=SIZE)
    assert desk.store._used_bytes > MIB
    other = replace(UPLOAD, vector=ModelVector("other"))
    assert await desk.put(other, *CHUNKS) is False
    assert await desk.received(UPLOAD) == 0
    with pytest.raises(StorageFull):
        await desk.put(UPLOAD, *CHUNKS)


async def test_a_disk_that_is_full_half_way_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a piece may be in the file: nobody goes on behind that, also if the line broke meanwhile."""
    desk = desk_in(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sealed_file.SealedWriter, "_seal", desk.hold(full))
    task = asyncio.create_task(desk.put(UPLOAD, *CHUNKS))
    await asyncio.to_thread(desk.held.wait, 10)
    task.cancel()
    desk.let_go.set()
    await asyncio.gather(task, return_exceptions=True)
    monkeypatch.undo()
    assert await desk.received(UPLOAD) == 0
    assert desk.files() == set()
    assert desk.store._used_bytes == 0


async def test_a_refused_chunk_ends_what_was_kept(tmp_path: Path) -> None:
    desk = desk_in(tmp_path)
    await desk.break_off(UPLOAD, CHUNKS[0])
    with pytest.raises(TooLarge):
        await desk.put(rest(UPLOAD, MIB), DATA[MIB : 2 * MIB + 1])
    assert desk.files() == set()
