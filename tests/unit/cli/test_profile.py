"""Connection profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.cli.client.profile import load_profile
from libs.core.errors import FailedPrecondition, InvalidInput

TLS = '[tls]\ncertificate = "tls.crt"\nkey = "tls.key"\nca = "ca.crt"\n'
COORDINATOR = '[coordinator]\naddress = "127.0.0.1:7400"\ntoken = "federation.token"\n'
HOSPITAL = '[hospital]\nname = "north"\naddress = "127.0.0.1:7420"\ntoken = "hospital.token"\n'


def _write(folder: Path, text: str) -> Path:
    for name in ("tls.crt", "tls.key", "ca.crt", "federation.token", "hospital.token"):
        (folder / name).write_text("x")
    path = folder / "profile.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_profile(tmp_path: Path) -> None:
    profile = load_profile(_write(tmp_path, TLS + COORDINATOR))
    assert profile.tls.key == tmp_path / "tls.key"
    assert profile.need_coordinator().token == tmp_path / "federation.token"


def test_a_scientists_profile_says_what_to_add_when_staff_commands_are_used(tmp_path: Path) -> None:
    profile = load_profile(_write(tmp_path, TLS + COORDINATOR))
    with pytest.raises(FailedPrecondition, match=r"\[hospital\]"):
        profile.need_hospital()


def test_a_staff_profile_says_what_to_add_when_federation_commands_are_used(tmp_path: Path) -> None:
    profile = load_profile(_write(tmp_path, TLS + HOSPITAL))
    with pytest.raises(FailedPrecondition, match=r"\[coordinator\]"):
        profile.need_coordinator()


def test_a_profile_without_a_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"Add a \[coordinator\] section"):
        load_profile(_write(tmp_path, TLS))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path, TLS + COORDINATOR)
    (tmp_path / "federation.token").unlink()
    with pytest.raises(InvalidInput, match=r"federation\.token"):
        load_profile(path)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="plaintext"):
        load_profile(_write(tmp_path, "plaintext = true\n" + TLS + COORDINATOR))


def test_staff_have_either_a_token_or_a_login(tmp_path: Path) -> None:
    login = HOSPITAL.replace('token = "hospital.token"', 'session = "mine.session"')
    profile = load_profile(_write(tmp_path, TLS + login))
    assert profile.need_hospital().token_file == tmp_path / "mine.session.token"
    for wrong in (HOSPITAL + 'session = "mine.session"\n', HOSPITAL.replace('token = "hospital.token"', "")):
        with pytest.raises(InvalidInput, match="either token"):
            load_profile(_write(tmp_path, TLS + wrong))
