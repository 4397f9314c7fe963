"""Settings are checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.cli.settings_files import coordinator_settings, to_toml
from libs.core.errors import InvalidInput
from libs.runtime.settings import load_settings
from services.coordinator.bootstrap import main
from services.coordinator.settings import CoordinatorSettings

PARTIES = ["127.0.0.1:7100", "127.0.0.1:7101", "127.0.0.1:7102"]


def write(folder: Path, *, listen: str = "127.0.0.1:0", more: str = "", parties: list[str] = PARTIES) -> Path:
    file = folder / "coordinator.toml"
    file.write_text(more + to_toml(coordinator_settings(listen=listen, parties=parties)))
    return file


def test_the_settings_that_the_command_line_writes_are_understood(tmp_path: Path) -> None:
    settings = load_settings(CoordinatorSettings, write(tmp_path))
    assert settings.database == f"sqlite:///{tmp_path}/coordinator.db"
    assert [party.index for party in settings.parties] == [0, 1, 2]


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="dead_line"):
        load_settings(CoordinatorSettings, write(tmp_path, more="dead_line = 3\n"))


def test_all_three_parties_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="party 0, 1 and 2"):
        load_settings(CoordinatorSettings, write(tmp_path, parties=PARTIES[:2]))


def test_a_party_needs_a_partys_identity(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("local/party/1", "local/hospital/alpha"))
    with pytest.raises(InvalidInput, match="not a party's identity"):
        load_settings(CoordinatorSettings, file)


def test_a_coordinator_that_cannot_start_says_why_and_leaves_with_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(tmp_path / "none.toml")]) == 1
    assert "none.toml cannot be read" in capsys.readouterr().err
    assert main([]) == 2
