"""Shares on disk: encrypted, whole or absent, bound to their place."""

from __future__ import annotations

import dataclasses
import errno
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.errors import Bug, FailedPrecondition, InvalidInput, StorageFull
from libs.core.secret import Secret
from libs.mpc.prg import expand_seed
from libs.mpc.ring import Ring
from libs.runtime.private_files import write_private
from services.smpc_party.adapters import sealed_file
from services.smpc_party.adapters.share_store import PIECE_BYTES, ShareStore, read_storage_key
from services.smpc_party.domain import Form, StoredShare

KEY = Secret(secrets.token_bytes(32))
VALUES = np.arange(700_000, dtype=np.uint32)  # 2.67 chunks


@pytest.fixture
def store(tmp_path: Path) -> ShareStore:
    return ShareStore(tmp_path, KEY, quota_bytes=None)


def save(store: ShareStore, values: Any = VALUES, context: str = "model:a") -> StoredShare:
    return store.save(values, context=context, ring=Ring.RING_32)


def path_of(tmp_path: Path, share: StoredShare) -> Path:
    return tmp_path / "shares" / share.name


@pytest.mark.parametrize("size", [1, 1 << 18, (1 << 18) + 1, 700_000])
def test_a_share_comes_back(store: ShareStore, tmp_path: Path, size: int) -> None:
    share = save(store, VALUES[:size])
    np.testing.assert_array_equal(store.load(share), VALUES[:size])
    assert path_of(tmp_path, share).stat().st_size == share.size_bytes


def test_a_seed_is_kept_as_sixteen_bytes_and_comes_back_expanded(store: ShareStore, tmp_path: Path) -> None:
    seed = secrets.token_bytes(16)
    writer = store.begin(context="model:a", form=Form.SEED, ring=Ring.RING_64, length=1000)
    writer.write(seed)
    share = writer.finish()
    np.testing.assert_array_equal(store.load(share), expand_seed(seed, 1000, Ring.RING_64))
    assert path_of(tmp_path, share).stat().st_size < 100


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("ring", list(Ring))
def test_the_pieces_of_all_shares_of_one_length_begin_at_the_same_places(
    store: ShareStore, ring: Ring, form: Form
) -> None:
    content = secrets.token_bytes(16) if form is Form.SEED else VALUES.astype(ring.dtype).tobytes()
    writer = store.begin(context="model:a", form=form, ring=ring, length=len(VALUES))
    writer.write(content)
    share = writer.finish()
    pieces = list(store.pieces(share))
    whole = PIECE_BYTES // ring.element_bytes
    assert [len(piece) for piece in pieces[:-1]] == [whole] * (len(VALUES) // whole)
    np.testing.assert_array_equal(np.concatenate(pieces), store.load(share))


@pytest.mark.parametrize("size", [1 << 15, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_share_does_not_depend_on_how_it_is_cut_into_writes(
    store: ShareStore, tmp_path: Path, size: int
) -> None:
    content = VALUES.tobytes()
    writer = store.begin(context="model:a", form=Form.VECTOR, ring=Ring.RING_32, length=len(VALUES))
    for start in range(0, len(content), size):
        writer.write(content[start : start + size])
    share = writer.finish()
    np.testing.assert_array_equal(store.load(share), VALUES)
    assert path_of(tmp_path, share).stat().st_size == share.size_bytes


@pytest.mark.parametrize("length", [len(VALUES) - 1, len(VALUES) + 1, 1 << 18])
def test_a_file_of_another_length_than_the_index_says_is_refused(store: ShareStore, length: int) -> None:
    with pytest.raises(Bug, match="disagree"):
        store.load(dataclasses.replace(save(store), length=length))


def test_the_file_holds_no_plaintext_and_only_its_owner_may_read_it(
    store: ShareStore, tmp_path: Path
) -> None:
    marker = np.frombuffer(b"MARK" * 1000, dtype=np.uint32)
    share = save(store, marker)
    content = path_of(tmp_path, share).read_bytes()
    assert b"MARK" not in content
    assert len(set(content)) == 256
    assert path_of(tmp_path, share).stat().st_mode & 0o077 == 0
    assert (tmp_path / "shares").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("place", [0, 9, 100, 1_100_000, -1])
def test_a_flipped_bit_is_refused(store: ShareStore, tmp_path: Path, place: int) -> None:
    share = save(store)
    path = path_of(tmp_path, share)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(FailedPrecondition, match="damaged"):
        store.load(share)


CHUNK = sealed_file.CHUNK_BYTES + 16
HEAD = sealed_file.OVERHEAD_BYTES
END = HEAD + 2 * CHUNK


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda c: c[: HEAD + CHUNK],  # cut at a chunk's end
        lambda c: c[:-1],
        lambda c: c[: HEAD - 1],
        lambda c: b"",
        lambda c: c[:HEAD] + c[HEAD + CHUNK :],  # first chunk missing
        lambda c: (
            c[:HEAD] + c[HEAD + CHUNK : HEAD + 2 * CHUNK] + c[HEAD : HEAD + CHUNK] + c[HEAD + 2 * CHUNK :]
        ),
        lambda c: c + c[-100:],
    ],
)
def test_missing_moved_and_added_chunks_are_refused(
    store: ShareStore, tmp_path: Path, rearrange: Any
) -> None:
    share = save(store)
    path = path_of(tmp_path, share)
    path.write_bytes(rearrange(path.read_bytes()))
    with pytest.raises(FailedPrecondition, match="damaged"):
        store.load(share)


def test_a_file_in_the_place_of_another_is_refused(store: ShareStore, tmp_path: Path) -> None:
    mine, other = save(store, context="model:a"), save(store, context="model:b")
    path_of(tmp_path, other).replace(path_of(tmp_path, mine))
    with pytest.raises(FailedPrecondition, match="damaged"):
        store.load(mine)


def test_another_storage_key_reads_nothing(store: ShareStore, tmp_path: Path) -> None:
    share = save(store)
    with pytest.raises(FailedPrecondition, match="storage key"):
        ShareStore(tmp_path, Secret(bytes(32)), quota_bytes=None).load(share)


def test_a_file_that_is_gone_is_refused(store: ShareStore, tmp_path: Path) -> None:
    share = save(store)
    path_of(tmp_path, share).unlink()
    with pytest.raises(FailedPrecondition):
        store.load(share)


def test_what_the_index_does_not_name_is_deleted_at_the_start(store: ShareStore, tmp_path: Path) -> None:
    kept, orphan = save(store), save(store)
    store.begin(context="model:c", form=Form.VECTOR, ring=Ring.RING_32, length=9).write(b"abcd")
    assert ShareStore(tmp_path, KEY, quota_bytes=None).clean({kept.name}) == 2
    assert not path_of(tmp_path, orphan).exists()
    assert list((tmp_path / "incoming").iterdir()) == []
    np.testing.assert_array_equal(store.load(kept), VALUES)


def test_a_discarded_share_leaves_nothing(store: ShareStore, tmp_path: Path) -> None:
    writer = store.begin(context="model:a", form=Form.VECTOR, ring=Ring.RING_32, length=9)
    writer.write(b"abcd")
    writer.discard()
    writer.discard()
    assert [*(tmp_path / "shares").iterdir(), *(tmp_path / "incoming").iterdir()] == []


@pytest.mark.parametrize("data", [b"", bytes(35), bytes(37)])
def test_a_share_of_another_length_is_refused(store: ShareStore, data: bytes) -> None:
    writer = store.begin(context="model:a", form=Form.VECTOR, ring=Ring.RING_32, length=9)

    def write_all() -> None:
        writer.write(data)
        writer.finish()

    with pytest.raises(InvalidInput):
        write_all()
    writer.discard()


def test_the_quota_counts_finished_and_unfinished_shares_and_gives_room_back(tmp_path: Path) -> None:
    size = sealed_file.sealed_size(4000)
    store = ShareStore(tmp_path, KEY, quota_bytes=2 * size)
    first = save(store, VALUES[:1000])
    second = store.begin(context="model:b", form=Form.VECTOR, ring=Ring.RING_32, length=1000)
    with pytest.raises(StorageFull):
        save(store, VALUES[:1000])
    second.discard()
    save(store, VALUES[:1000])
    with pytest.raises(StorageFull):
        save(store, VALUES[:1])
    store.delete([first])
    save(store, VALUES[:1000])
    with pytest.raises(StorageFull):
        save(ShareStore(tmp_path, KEY, quota_bytes=2 * size), VALUES[:1])


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_disk_that_fills_up_at_the_last_moment_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = ShareStore(tmp_path, KEY, quota_bytes=sealed_file.sealed_size(4000))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "rename", full)))
        with pytest.raises(StorageFull):
            save(store, VALUES[:1000])
    assert [*(tmp_path / "shares").iterdir(), *(tmp_path / "incoming").iterdir()] == []
    save(store, VALUES[:1000])


@pytest.mark.parametrize("content", ["", "zz", "00" * 31, "00" * 33])
def test_a_storage_key_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "storage.key"
    write_private(path, content)
    with pytest.raises(InvalidInput, match="storage key"):
        read_storage_key(path)
    with pytest.raises(InvalidInput):
        read_storage_key(tmp_path / "missing")


def test_a_storage_key_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "storage.key"
    write_private(path, "ab" * 32)
    assert read_storage_key(path).expose() == b"\xab" * 32
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_storage_key(path)
