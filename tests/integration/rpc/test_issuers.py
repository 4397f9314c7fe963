"""Tokens of an organisation's own issuer, from the settings file to an answer over gRPC."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from libs.core.errors import PermissionDenied, TrefoilError, Unauthenticated, Unavailable
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc.channel import translated
from libs.rpc.revoke import revoke_token
from libs.rpc.settings import RpcSettings
from libs.runtime.settings import load_settings
from tests.fakes.rpc_rig import HOSPITAL, Rig
from tests.fakes.token_services import AUDIENCE, ISSUER, Asked, claims, https_service, rsa_key, signed

KEY = rsa_key("now")
COMMON = """
listen = "127.0.0.1:0"
token_secrets = []
[tls]
certificate = "tls.crt"
key = "tls.key"
ca = "ca.crt"
"""


def said(**changed: Any) -> dict[str, Any]:
    return claims(now=datetime.now(UTC), role="worker", **changed)


def settings(folder: Path, entries: str, *, top: str = "") -> RpcSettings:
    file = folder / "settings.toml"
    file.write_text(top + COMMON + entries)
    return load_settings(RpcSettings, file)


async def put(rig: Rig, token: str) -> None:
    with translated():
        await (await rig.stub(HOSPITAL, token=token)).PutShares(iter([pb.PutSharesRequest(chunk=b"x")]))


@pytest.mark.parametrize("source", ["a file", "a key set"])
async def test_an_rs256_token_of_a_listed_issuer_may_call_and_no_other(
    rig: Rig, tmp_path: Path, source: str
) -> None:
    (tmp_path / "issuer.pem").write_bytes(KEY.as_pem(private=False))
    document = json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()
    async with https_service(tmp_path / "service", lambda _asked: (200, document)) as service:
        where = 'key = "issuer.pem"' if source == "a file" else f'jwks_url = "{service.url}"'
        entry = (
            f'[[token_keys]]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nca = "service/ca.crt"\n{where}'
        )
        await rig.serve(tokens=settings(tmp_path, entry).token_gate())
        await put(rig, signed(KEY, "RS256", said(), kid="now"))
        token = rig.party.callers[0].token
        assert token is not None
        assert (token.subject, token.issuer) == ("dana", ISSUER)
        refused: list[tuple[str, type[TrefoilError]]] = [
            (signed(KEY, "PS256", said(), kid="now"), Unauthenticated),
            (signed(rsa_key(), "RS256", said(), kid="now"), Unauthenticated),
            (signed(KEY, "RS256", said(aud="elsewhere"), kid="now"), Unauthenticated),
            (signed(KEY, "RS256", {**said(), "role": "scientist"}, kid="now"), PermissionDenied),
        ]
        for bad, error in refused:
            with pytest.raises(error):
                await put(rig, bad)
        assert len(rig.party.callers) == 1


async def test_a_settings_file_says_which_keys_which_uses_and_what_was_taken_back(
    rig: Rig, tmp_path: Path
) -> None:
    new = rsa_key("new")
    for name, key in (("now.pem", KEY), ("new.pem", new)):
        (tmp_path / name).write_bytes(key.as_pem(private=False))
    revoke_token(tmp_path / "revoked.toml", issuer=ISSUER, token_id="taken-back")
    entry = (
        f'[[token_keys]]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\none_time = true\n'
        'keys = { "now" = "now.pem", "new" = "new.pem" }\n'
    )
    top = 'token_revocations = "revoked.toml"\ntoken_uses = "token_uses.db"\n'
    await rig.serve(tokens=settings(tmp_path, entry, top=top).token_gate())
    await put(rig, signed(new, "RS256", said(jti="first"), kid="new"))
    for bad, text in (("first", "used before"), ("taken-back", "taken back")):
        with pytest.raises(Unauthenticated, match=text):
            await put(rig, signed(KEY, "RS256", said(jti=bad), kid="now"))
    assert len(rig.party.callers) == 1
    assert await asyncio.to_thread((tmp_path / "token_uses.db").exists)


async def test_an_opaque_token_may_call_if_its_issuer_says_so(rig: Rig, tmp_path: Path) -> None:
    answers: dict[str, tuple[int, dict[str, Any]]] = {
        "token=good": (200, {"active": True, **said()}),
        "token=revoked": (200, {"active": False}),
        "token=broken": (500, {}),
    }
    secret = tmp_path / "client.secret"
    secret.touch(mode=0o600)
    secret.write_text("of-this-service")

    def answer(asked: Asked) -> tuple[int, bytes]:
        status, told = answers[asked.body.decode().partition("&")[0]]
        return status, json.dumps(told).encode()

    async with https_service(tmp_path / "service", answer) as service:
        entry = (
            f'[[token_introspection]]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nurl = "{service.url}"\n'
            'ca = "service/ca.crt"\nclient_id = "trefoil"\nclient_secret = "client.secret"'
        )
        await rig.serve(tokens=settings(tmp_path, entry).token_gate())
        await put(rig, "good")
        with pytest.raises(Unauthenticated, match="not valid"):
            await put(rig, "revoked")
        with pytest.raises(Unavailable, match="checks tokens"):
            await put(rig, "broken")
        assert len(rig.party.callers) == 1
