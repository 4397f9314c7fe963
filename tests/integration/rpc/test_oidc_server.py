"""Tokens of a real OpenID Connect server: its key set, its rotation, and what it says when asked."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk

from libs.core.errors import Unauthenticated
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc.channel import translated
from libs.rpc.token_settings import TokenIntrospectionSettings, TokenKeySettings, token_gate
from tests.fakes.oidc_server import (
    AUDIENCE,
    CLIENT,
    CLIENT_SECRET,
    SCOPE,
    OidcServer,
    needs_glewlwyd,
    oidc_server,
)
from tests.fakes.rpc_rig import HOSPITAL, Rig

pytestmark = needs_glewlwyd

MAX_AGE_S = 60.0


def key(algorithm: str = "ES256", *, kid: str = "first") -> Any:
    made: dict[str, Callable[[dict[str, str]], Any]] = {
        "RS256": lambda about: jwk.RSAKey.generate_key(2048, about),
        "PS256": lambda about: jwk.RSAKey.generate_key(2048, about),
        "ES256": lambda about: jwk.ECKey.generate_key("P-256", about),
        "EdDSA": lambda about: jwk.OKPKey.generate_key("Ed25519", about),
    }
    return made[algorithm]({"kid": kid, "use": "sig", "alg": algorithm})


class TurnedMonotonicClock:
    """The day's time, which the server shares, and seconds that tests turn."""

    seconds = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return self.seconds


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


def by_key_set(server: OidcServer, **changed: Any) -> TokenKeySettings:
    said = {
        "issuer": server.issuer,
        "audience": AUDIENCE,
        "jwks_url": f"{server.issuer}/jwks",
        "ca": server.ca,
        "max_age_s": MAX_AGE_S,
        "role_claim": "scope",
        "roles": {SCOPE: "worker"},
    }
    return TokenKeySettings(**{**said, **changed})


def by_asking(server: OidcServer, folder: Path, **changed: Any) -> TokenIntrospectionSettings:
    secret = folder / "client.secret"
    secret.touch(mode=0o600)
    secret.write_text(CLIENT_SECRET)
    said = {
        "issuer": server.issuer,
        "audience": AUDIENCE,
        "url": f"{server.issuer}/introspect",
        "ca": server.ca,
        "client_id": CLIENT,
        "client_secret": secret,
        "accepted_for_s": 0,
        "role_claim": "scope",
        "roles": {SCOPE: "worker"},
    }
    return TokenIntrospectionSettings(**{**said, **changed})


async def put(rig: Rig, token: str) -> Any:
    """What a party's handler saw of the caller's token."""
    with translated():
        await (await rig.stub(HOSPITAL, token=token)).PutShares(iter([pb.PutSharesRequest(chunk=b"x")]))
    return rig.party.callers[-1].token


async def refused(rig: Rig, token: str, match: str) -> None:
    seen = len(rig.party.callers)
    with pytest.raises(Unauthenticated, match=match):
        await put(rig, token)
    assert len(rig.party.callers) == seen


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_token_of_the_server_is_accepted_by_its_key_set(
    rig: Rig, tmp_path: Path, stack: AsyncExitStack, algorithm: str
) -> None:
    server = await stack.enter_async_context(oidc_server(tmp_path / "server", key(algorithm)))
    padding = {"rsa_algorithm": algorithm} if algorithm == "PS256" else {}
    await rig.serve(tokens=token_gate([], [by_key_set(server, **padding)], []))
    token = await server.token()
    said = await put(rig, token)
    assert (said.subject, said.issuer, said.audience, said.role.value) == (
        CLIENT,
        server.issuer,
        AUDIENCE,
        "worker",
    )
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "olga"}).encode()).decode().rstrip("=")
    await refused(rig, f"{head}.{forged}.{signature}", "signature is wrong")


async def test_a_person_s_token_is_for_its_scope_and_for_no_other_audience(
    rig: Rig, tmp_path: Path, stack: AsyncExitStack
) -> None:
    server = await stack.enter_async_context(oidc_server(tmp_path / "server", key()))
    await rig.serve(tokens=token_gate([], [by_key_set(server, audience=SCOPE)], []))
    said = await put(rig, await server.token(grant="password"))
    assert said.role.value == "worker"
    assert said.subject not in {"", CLIENT}
    await refused(rig, await server.token(), "wrong audience")


async def test_a_token_that_the_server_is_asked_about_ends_when_it_is_revoked_there(
    rig: Rig, tmp_path: Path, stack: AsyncExitStack
) -> None:
    server = await stack.enter_async_context(oidc_server(tmp_path / "server", key()))
    # of a client's own tokens the server's answers name neither issuer nor subject
    asked = by_asking(server, tmp_path, assume_issuer=True, subject_claim="client_id")
    await rig.serve(tokens=token_gate([], [], [asked]))
    token, other = await server.token(), await server.token()
    said = await put(rig, token)
    assert (said.subject, said.issuer, said.role.value) == (CLIENT, server.issuer, "worker")
    await server.revoke(token)
    await refused(rig, token, "not valid")
    await refused(rig, "made-up", "not valid")
    await put(rig, other)


async def test_a_signed_token_ends_at_its_revocation_where_the_server_has_to_agree_too(
    rig: Rig, tmp_path: Path, stack: AsyncExitStack
) -> None:
    server = await stack.enter_async_context(oidc_server(tmp_path / "server", key()))
    signed = by_key_set(server)
    both = token_gate([], [signed], [by_asking(server, tmp_path, additional=True)])
    await rig.serve(tokens=both)
    token, other = await server.token(), await server.token()
    await put(rig, token)
    await server.revoke(token)
    await refused(rig, token, "not valid")
    await put(rig, other)
    alone = token_gate([], [signed], [])
    assert (await alone.check(token)).subject == CLIENT  # a signature does not say what was revoked
    await alone.close()


async def test_the_server_rotates_its_keys_and_ours_does_not_restart(
    rig: Rig, tmp_path: Path, stack: AsyncExitStack
) -> None:
    clock, first, second = TurnedMonotonicClock(), key(), key(kid="second")
    server = await stack.enter_async_context(oidc_server(tmp_path / "server", first))
    await rig.serve(tokens=token_gate([], [by_key_set(server, min_refetch_s=5)], [], clock=clock))
    old = await server.token()
    await put(rig, old)

    await server.sign_with(second, first)
    clock.seconds += 5
    new = await server.token()
    await put(rig, new)
    await put(rig, old)

    await server.sign_with(second)
    clock.seconds += MAX_AGE_S - 1
    await put(rig, old)
    clock.seconds += 1
    await refused(rig, old, "does not list")
    await put(rig, new)
    await put(rig, await server.token())
