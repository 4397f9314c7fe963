"""The cluster that demo, bench and tests share: what it says when a service cannot start."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from libs.cli.local_cluster import LocalCluster, ProcessDied

pytestmark = pytest.mark.timeout(120)


def test_a_service_that_cannot_start_is_named_with_its_reason_and_all_others_are_stopped(
    tmp_path: Path,
) -> None:
    cluster = LocalCluster(tmp_path, hospitals=(), overrides={"party-1": {"plaintext": True}})
    with pytest.raises(ProcessDied) as told, cluster:
        pytest.fail("it must not come up")
    assert "party-1" in str(told.value)
    assert "plaintext" in str(told.value)
    below = psutil.Process(os.getpid()).children(recursive=True)
    assert not [child for child in below if "services" in " ".join(child.cmdline())]


def test_private_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, hospitals=(), overrides={"party-1": {"plaintext": True}})
    with pytest.raises(ProcessDied), cluster:
        pytest.fail("it must not come up")
    private = [*tmp_path.rglob("*.key"), *tmp_path.rglob("*.token"), *tmp_path.rglob("jwt.secret")]
    assert len(private) >= 10
    for file in private:
        assert file.stat().st_mode & 0o077 == 0, file
    assert not list(tmp_path.glob("party-*/**/ca.key"))
