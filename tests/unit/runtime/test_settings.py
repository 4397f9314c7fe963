"""Settings say plainly what is wrong, and never what the secret was."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.core.errors import InvalidInput
from libs.rpc.identity import TlsFiles
from libs.rpc.settings import RpcSettings
from libs.runtime.settings import ServiceSettings, load_settings


class Peer(ServiceSettings):
    index: int
    folder: Path = Path("peer")


class Example(ServiceSettings):
    listen: str
    store: Path
    roots: tuple[Path, ...] = ()
    peers: tuple[Peer, ...] = ()
    database: str = "sqlite:///example.db"
    optional: Path | None = None


def load(folder: Path, text: str) -> Example:
    (folder / "settings.toml").write_text(text)
    return load_settings(Example, folder / "settings.toml")


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'listen = "h:1"\nstore = "store"\nroots = ["a", "/b"]\n'
        '[[peers]]\nindex = 1\n[[peers]]\nindex = 2\nfolder = "x"',
    )
    assert settings.store == tmp_path / "store"
    assert settings.roots == (tmp_path / "a", Path("/b"))
    assert [peer.folder for peer in settings.peers] == [tmp_path / "peer", tmp_path / "x"]
    assert settings.database == f"sqlite:///{tmp_path}/example.db"
    assert settings.optional is None


@pytest.mark.parametrize(
    "url", ["sqlite:////var/db", "sqlite://", "sqlite:///:memory:", "postgresql://host/db"]
)
def test_other_databases_stay_as_they_are(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, f'listen = "h:1"\nstore = "s"\ndatabase = "{url}"').database == url


def test_settings_made_without_a_file_keep_their_paths() -> None:
    assert Example(listen="h:1", store=Path("store")).store == Path("store")


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as failure:
        load(tmp_path, 'lisen = "h:1"\nstore = "s"\n[[peers]]\nindex = "one"\nfoldr = "x"')
    text = str(failure.value)
    for line in (
        "listen: is missing",
        "lisen: is not a known key; check its spelling",
        "peers.0.index: input should be a valid integer",
        "peers.0.foldr: is not a known key",
    ):
        assert line in text


def test_the_value_of_a_wrong_key_is_not_echoed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as failure:
        load(tmp_path, 'listen = "h:1"\nstore = "s"\npassword = "hunter2"\n[[peers]]\nindex = "hunter3"')
    assert "hunter" not in str(failure.value)


@pytest.mark.parametrize("text", ["listen = ", "= 1", "listen = \xff"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"settings\.toml is not TOML"):
        load_settings(Example, tmp_path / "settings.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"absent\.toml cannot be read: No such file"):
        load_settings(Example, tmp_path / "absent.toml")


def test_settings_cannot_be_changed_later() -> None:
    settings = Example(listen="h:1", store=Path("store"))
    with pytest.raises(ValueError, match="frozen"):
        settings.listen = "h:2"  # type: ignore[misc]


RPC = """
listen = "127.0.0.1:0"
log_level = "INFO"
record_received_to = "received"
[tls]
certificate = "tls.crt"
key = "tls.key"
ca = "ca.crt"
[[token_secrets]]
issuer = "trefoil-federation"
secret = "jwt.secret"
audience = "trefoil"
"""


def test_a_services_settings_name_its_key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(RPC)
    settings = load_settings(RpcSettings, file)
    assert settings.tls.files == TlsFiles(
        certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key", ca=tmp_path / "ca.crt"
    )
    assert (settings.log_level, settings.reflection) == ("info", False)
    with pytest.raises(InvalidInput, match=r"jwt\.secret cannot be read"):
        settings.token_gate()
    monkeypatch.setenv("TREFOIL_TESTING", "1")
    recorder = settings.recorder()
    assert recorder is not None
    assert recorder.path.parent == tmp_path / "received"
