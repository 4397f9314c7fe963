"""The cluster that demo, bench and tests share: what is left when a service cannot start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from libs.cli.local_cluster import LocalCluster, ProcessDied

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Failed:
    """A cluster whose party 1 had a wrong setting."""

    root: Path
    text: str


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Failed:
    root = tmp_path_factory.mktemp("cluster")
    cluster = LocalCluster(root, hospitals=(), overrides={"party-1": {"plaintext": True}})
    with pytest.raises(ProcessDied) as told, cluster:
        pytest.fail("it must not come up")
    return Failed(root, str(told.value))


def test_a_service_that_cannot_start_is_named_with_its_reason(failed: Failed) -> None:
    assert "party-1" in failed.text
    assert "plaintext" in failed.text


def test_all_other_services_are_stopped(failed: Failed) -> None:
    below = psutil.Process(os.getpid()).children(recursive=True)
    assert not [child for child in below if str(failed.root) in " ".join(child.cmdline())]


def test_private_files_are_for_their_owner_alone(failed: Failed) -> None:
    names = ("*.key", "*.token", "jwt.secret")
    private = [file for name in names for file in failed.root.rglob(name)]
    assert len(private) >= 10
    for file in private:
        assert file.stat().st_mode & 0o077 == 0, file


def test_only_the_keys_folder_can_sign_certificates(failed: Failed) -> None:
    assert [file.relative_to(failed.root) for file in failed.root.rglob("ca.key")] == [Path("keys/ca/ca.key")]
