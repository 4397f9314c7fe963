"""The node's two keys: made once, private, and never replaced by accident."""

from __future__ import annotations

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from libs.core.errors import InvalidInput
from libs.rpc.dev_ca import DevelopmentCa
from libs.runtime.private_files import write_private
from services.hospital_node.accounts.keys import sealing_key, signing_key


def seen(key: Any) -> bytes:
    """Its bytes."""
    return bytes(key.private_bytes_raw() if hasattr(key, "private_bytes_raw") else key.expose())


@pytest.mark.parametrize("read", [signing_key, sealing_key])
def test_a_key_is_made_for_the_node_alone_and_read_from_then_on(
    read: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / "accounts" / "a.key"
    first = seen(read(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert seen(read(path)) == first
    assert [file.name for file in path.parent.iterdir()] == ["a.key"]
    assert seen(read(tmp_path / "other.key")) != first


@pytest.mark.parametrize("read", [signing_key, sealing_key])
def test_of_several_that_make_it_at_once_all_get_the_same(
    read: Callable[[Path], Any], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(read, [tmp_path / "a.key"] * 8))
    assert len({seen(key) for key in keys}) == 1


@pytest.mark.parametrize("read", [signing_key, sealing_key])
@pytest.mark.parametrize("content", ["", "something else", "abcd"])
def test_a_damaged_key_is_told_and_not_replaced(
    read: Callable[[Path], Any], content: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.key"
    write_private(path, content)
    with pytest.raises(InvalidInput, match=r"a\.key"):
        read(path)
    assert path.read_text() == content


def test_a_key_that_everybody_may_read_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    sealing_key(path)
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod"):
        sealing_key(path)
    DevelopmentCa().write(tmp_path / "ca")
    with pytest.raises(InvalidInput, match="Ed25519"):
        signing_key(tmp_path / "ca" / "ca.key")
