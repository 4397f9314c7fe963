"""Tokens bound to a certificate, good for one call, or taken back: over real connections."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from libs.core.errors import PermissionDenied, TrefoilError, Unauthenticated, Unavailable
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc.channel import translated
from libs.rpc.dev_ca import DevelopmentCa, issuing_secret
from libs.rpc.identity import TlsFiles
from libs.rpc.revoke import revoke_token
from libs.rpc.token_settings import TokenSecretSettings, token_gate
from libs.rpc.tokens import Role, TokenIssuer, TokenVerifier
from tests.fakes.keys import tls_files
from tests.fakes.rpc_rig import HOSPITAL, PARTY, Rig


def issued(rig: Rig, *, role: Role = Role.WORKER, certificate: bytes | None = None) -> str:
    issuer = TokenIssuer(issuing_secret(rig.keys, "federation"))
    return issuer.issue(subject="alpha", role=role, lifetime=timedelta(hours=1), certificate=certificate)


def settings(rig: Rig, *, bound: bool = False, one_time: bool = False) -> TokenSecretSettings:
    secret = issuing_secret(rig.keys, "federation")
    return TokenSecretSettings(
        issuer=secret.issuer,
        audience=secret.audience,
        secret=rig.keys / "federation" / "jwt.secret",
        bound=bound,
        one_time=one_time,
    )


async def put(rig: Rig, token: str, *, tls: TlsFiles | None = None) -> None:
    with translated():
        stub = await rig.stub(HOSPITAL, token=token, tls=tls)
        await stub.PutShares(iter([pb.PutSharesRequest(chunk=b"x")]), timeout=10)


def second_certificate(rig: Rig, folder: Path) -> tuple[DevelopmentCa, TlsFiles, TlsFiles, TlsFiles]:
    """A CA that issued the hospital two certificates, and the party one."""
    ca = DevelopmentCa()
    made = []
    for name, identity in (("first", HOSPITAL), ("second", HOSPITAL), ("party", PARTY)):
        ca.issue(identity, folder / name)
        made.append(TlsFiles(folder / name / "tls.crt", folder / name / "tls.key", folder / name / "ca.crt"))
    return ca, *made


def pem(files: TlsFiles) -> bytes:
    return files.certificate.read_bytes()


def with_role(rig: Rig, token: str, role: str) -> str:
    """The same token, id included, for another role."""
    said = jwt.decode(token, options={"verify_signature": False})
    secret = issuing_secret(rig.keys, "federation").secret.expose()
    return jwt.encode({**said, "role": role}, secret, algorithm="HS256")


# ---------------------------------------------------------------- bound to a certificate


async def test_a_bound_token_is_worth_nothing_over_another_certificate_of_the_same_identity(
    rig: Rig, tmp_path: Path
) -> None:
    _, first, second, party = second_certificate(rig, tmp_path)
    await rig.serve(tls=party)
    token = issued(rig, certificate=pem(first))
    await put(rig, token, tls=first)
    with pytest.raises(Unauthenticated, match="belongs to another certificate"):
        await put(rig, token, tls=second)
    await put(rig, issued(rig), tls=second)
    assert len(rig.party.callers) == 2
    caller = rig.party.callers[0]
    assert caller.token is not None
    der = x509.load_pem_x509_certificate(pem(first)).public_bytes(Encoding.DER)
    assert caller.token.certificate == _thumbprint(der)


def _thumbprint(der: bytes) -> str:
    """RFC 8705, 3.1, written out a second time."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


async def test_an_issuer_whose_tokens_must_be_bound_has_no_others(rig: Rig) -> None:
    await rig.serve(tokens=token_gate([settings(rig, bound=True)], [], []))
    await put(rig, issued(rig, certificate=pem(tls_files(rig.keys, HOSPITAL))))
    with pytest.raises(Unauthenticated, match="names no certificate"):
        await put(rig, issued(rig))


# ---------------------------------------------------------------- good for one call


async def test_of_a_hundred_calls_with_a_token_for_one_call_one_is_let_in(rig: Rig, tmp_path: Path) -> None:
    await rig.serve(tokens=token_gate([settings(rig, one_time=True)], [], [], uses=tmp_path / "uses.db"))
    stub = await rig.stub(HOSPITAL, token=issued(rig))

    async def call() -> type[TrefoilError] | None:
        try:
            with translated():
                await stub.PutShares(iter([pb.PutSharesRequest(chunk=b"x")]), timeout=30)
        except TrefoilError as error:
            return type(error)
        return None

    answers = await asyncio.gather(*(call() for _ in range(100)))
    assert (answers.count(None), answers.count(Unauthenticated)) == (1, 99)
    assert len(rig.party.callers) == 1


async def test_a_call_that_is_refused_for_another_reason_uses_up_nothing(rig: Rig, tmp_path: Path) -> None:
    _, first, second, party = second_certificate(rig, tmp_path)
    revoked = tmp_path / "revoked.toml"
    revoked.write_text("version = 1\n")
    gate = token_gate([settings(rig, one_time=True)], [], [], uses=tmp_path / "uses.db", revocations=revoked)
    await rig.serve(tls=party, tokens=gate)
    token = issued(rig, certificate=pem(first))
    with pytest.raises(Unauthenticated, match="another certificate"):
        await put(rig, token, tls=second)
    with pytest.raises(PermissionDenied, match="needs a token with the role"):
        await put(rig, with_role(rig, token, "scientist"), tls=first)
    await _replaced(revoked, "version = 2")
    with pytest.raises(Unavailable, match="taken back"):
        await put(rig, token, tls=first)
    await _replaced(revoked, "version = 1")
    await put(rig, token, tls=first)
    with pytest.raises(Unauthenticated, match="used before"):
        await put(rig, token, tls=first)


# ---------------------------------------------------------------- taken back


async def test_a_token_that_is_taken_back_ends_without_a_restart(rig: Rig, tmp_path: Path) -> None:
    revoked = tmp_path / "revoked.toml"
    revoked.write_text("version = 1\n")
    await rig.serve(tokens=token_gate([settings(rig)], [], [], revocations=revoked))
    token, other = issued(rig), issued(rig)
    await put(rig, token)
    said = TokenVerifier([issuing_secret(rig.keys, "federation")]).verify(token)
    revoke_token(revoked, issuer=said.issuer, token_id=said.token_id)
    with pytest.raises(Unauthenticated, match="taken back"):
        await put(rig, token)
    await put(rig, other)


async def _replaced(file: Path, text: str) -> None:
    await asyncio.to_thread(file.write_text, text)
