"""`trefoil keys`: what it makes, for whom it is readable, and that it never overwrites."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from libs.cli.keys import app
from libs.core.errors import AlreadyExists, InvalidInput
from libs.rpc import dev_ca
from libs.rpc.dev_ca import create_keys, folder_name, issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity
from libs.rpc.token_checks.binding import thumbprint
from libs.rpc.tokens import Role, TokenVerifier

EVERYBODY = [
    COORDINATOR,
    *(party_identity(index) for index in range(3)),
    Identity(Kind.HOSPITAL, "alpha"),
    Identity(Kind.CLIENT, "dana"),
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "trefoil"
    result = CliRunner().invoke(app, ["init", str(folder), "--hospital", "alpha", "--client", "dana"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("identity", EVERYBODY, ids=str)
def test_every_certificate_is_p256_signed_by_the_ca_and_names_one_identity(
    keys: Path, identity: Identity
) -> None:
    folder = keys / folder_name(identity)
    certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    certificate.verify_directly_issued_by(ca)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [identity.uri]
    assert names.get_values_for_type(x509.DNSName) == [identity.dns_name]
    assert len(names) == 2
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usages) is (identity.kind is not Kind.CLIENT)


def test_only_the_owner_can_read_any_of_it(keys: Path) -> None:
    for path in [keys, *keys.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_each_service_gets_what_it_needs_and_nothing_else(keys: Path) -> None:
    certificate = {"tls.crt", "tls.key", "ca.crt"}
    assert {folder.name: {file.name for file in folder.iterdir()} for folder in keys.iterdir()} == {
        "ca": {"ca.crt", "ca.key"},
        "federation": {"jwt.secret"},
        "coordinator": certificate | {"jwt.secret"},
        "party-0": certificate | {"jwt.secret", "storage.key"},
        "party-1": certificate | {"jwt.secret", "storage.key"},
        "party-2": certificate | {"jwt.secret", "storage.key"},
        "hospital-alpha": certificate | {"jwt.secret"},
        "client-dana": certificate,
    }


def test_a_token_is_written_for_its_owner_alone_and_replaces_the_last_one(keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "worker.token"
    file.write_text("expired")
    file.chmod(0o644)
    arguments = ["token", str(keys), "--issuer", "federation", "--subject", "alpha", "--role", "worker"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(file)])
    assert (result.exit_code, result.output) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    claims = TokenVerifier([issuing_secret(keys, "federation")]).verify(file.read_text())
    assert (claims.subject, claims.role) == ("alpha", Role.WORKER)
    assert [path.name for path in tmp_path.iterdir()] == ["worker.token"]


def test_parties_share_the_token_secret_but_no_storage_key(keys: Path) -> None:
    assert len({(keys / f"party-{index}" / "jwt.secret").read_text() for index in range(3)}) == 1
    storage = {(keys / f"party-{index}" / "storage.key").read_text().strip() for index in range(3)}
    assert len(storage) == 3
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in storage)
    assert (keys / "hospital-alpha" / "jwt.secret").read_text() != (
        keys / "federation" / "jwt.secret"
    ).read_text()


def test_keys_are_never_overwritten(keys: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, ["init", str(keys)])
    assert isinstance(result.exception, AlreadyExists)
    assert "never overwritten" in str(result.exception)
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(AlreadyExists):
        create_keys(file, hospitals=[], clients=[])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    create_keys(tmp_path, hospitals=[], clients=[])
    assert (tmp_path / "coordinator" / "tls.crt").exists()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_nothing_is_left_when_making_keys_fails_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_length: int) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dev_ca, "_new_secret", full)
    with pytest.raises(OSError, match="No space"):
        create_keys(tmp_path / "keys", hospitals=[], clients=[])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [["../evil"], ["a", "a"], ["A"], [""], ["a.b"]])
def test_a_name_that_cannot_be_one_is_refused_before_anything_is_written(
    tmp_path: Path, names: list[str]
) -> None:
    with pytest.raises(InvalidInput):
        create_keys(tmp_path / "keys", hospitals=names, clients=[])
    assert list(tmp_path.iterdir()) == []


def token(keys: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["token", str(keys), *arguments], catch_exceptions=False)
    return str(result.output).strip()


def test_a_token_of_the_command_line_is_accepted_by_its_audience_alone(keys: Path) -> None:
    federation = TokenVerifier([issuing_secret(keys, "federation")])
    hospital = TokenVerifier([issuing_secret(keys, "hospital-alpha")])
    worker = token(keys, "--issuer", "federation", "--subject", "alpha", "--role", "worker", "--ttl", "30d")
    owner = token(keys, "--issuer", "hospital-alpha", "--subject", "olga", "--role", "owner")
    assert federation.verify(worker).role is Role.WORKER
    assert hospital.verify(owner).audience == "hospital-alpha"
    for verifier, wrong in ((federation, owner), (hospital, worker)):
        with pytest.raises(Exception, match="issuer is not known"):
            verifier.verify(wrong)


@pytest.mark.parametrize(
    ("issuer", "roles"),
    [
        (
            "hospital-alpha",
            ("owner", "administrator", "compliance_officer", "scientist", "clinician", "auditor"),
        ),
        ("federation", ("scientist", "clinician", "worker", "operator", "auditor")),
    ],
)
def test_each_issuer_gives_the_roles_that_services_listen_to(
    keys: Path, issuer: str, roles: tuple[str, ...]
) -> None:
    verifier = TokenVerifier([issuing_secret(keys, issuer)])
    for role in roles:
        made = token(keys, "--issuer", issuer, "--subject", "ada", "--role", role)
        assert verifier.verify(made).role == role


def test_a_token_of_the_command_line_can_be_bound_to_a_certificate(keys: Path) -> None:
    certificate = keys / "hospital-alpha" / "tls.crt"
    made = ["--issuer", "federation", "--subject", "alpha", "--role", "worker"]
    said = TokenVerifier([issuing_secret(keys, "federation")]).verify(
        token(keys, *made, "--bind", str(certificate))
    )
    assert said.certificate == thumbprint(certificate.read_bytes())
    for wrong, text in (("tls.key", "not a certificate"), ("absent.crt", "cannot be read")):
        with pytest.raises(InvalidInput, match=text):
            token(keys, *made, "--bind", str(certificate.with_name(wrong)))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"--role": "root"}, "gives nobody the role 'root'"),
        ({"--role": "owner"}, "gives nobody the role 'owner'"),
        ({"--role": "worker", "--issuer": "hospital-alpha"}, "gives nobody the role 'worker'"),
        ({"--role": "staff", "--issuer": "hospital-alpha"}, "gives nobody the role 'staff'"),
        ({"--ttl": "8"}, "is not a duration"),
        ({"--ttl": "0h"}, "is not a duration"),
        ({"--ttl": "91d"}, "at most 90 days"),
        ({"--issuer": "me"}, "issues no tokens"),
        ({"--issuer": "hospital-../ca"}, "cannot name a hospital"),
        ({"--issuer": "hospital-absent"}, "cannot be read"),
        ({"--audience": "hospital-alpha"}, "are for the audience trefoil"),
        ({"--subject": ""}, "needs a subject"),
    ],
    ids=json.dumps,
)
def test_a_token_that_makes_no_sense_is_refused_in_plain_words(
    keys: Path, changed: dict[str, str], text: str
) -> None:
    options = {"--issuer": "federation", "--subject": "dana", "--role": "scientist", **changed}
    with pytest.raises(InvalidInput, match=text):
        token(keys, *(word for option in options.items() for word in option))
