"""Holes of PyGrid that let anybody in: no authentication, tokens for ever, keys that everybody has."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest

from libs.cli.client.accounts import log_in
from libs.cli.demo.staff import owners_profile
from libs.core.errors import InvalidInput
from libs.rpc.dev_ca import create_keys, issuing_secret
from libs.rpc.tokens import Role, TokenIssuer
from tests.e2e.known_holes.conftest import (
    HOSPITALS,
    LET_IN,
    SCIENTIST,
    Federation,
    password_of,
    secrets_below,
)

pytestmark = pytest.mark.timeout(240)

WHO = grpc.StatusCode.UNAUTHENTICATED
GATEWAY = "/trefoil.coordinator.v1.CoordinatorService/"
SEARCH = GATEWAY + "SearchDatasets"


async def test_the_gateway_answers_nobody_without_a_token_and_nobody_without_a_certificate(
    federation: Federation,
) -> None:
    """PyGrid: the gateway has no authentication."""
    token = federation.token_of("client-scientist")
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, token) is LET_IN
    for method in ("DescribeFederation", "SearchDatasets", "ListModels", "ListStudies", "ListAssociations"):
        assert await federation.answer("coordinator", GATEWAY + method, SCIENTIST, None) is WHO
    ca = federation.files(SCIENTIST).ca.read_bytes()
    async with grpc.aio.secure_channel(
        federation.cluster.addresses["coordinator"],
        grpc.ssl_channel_credentials(ca),
        options=[("grpc.ssl_target_name_override", "coordinator.trefoil.local")],
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(SEARCH)(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tokens_of_another_algorithm_or_without_exp_aud_iss_sub_or_jti_are_refused(
    federation: Federation,
) -> None:
    """PyGrid: `jwt.decode` without pinned algorithms; no `exp`, `aud`, `iss`."""
    maker = federation.maker
    secret = maker.secrets["coordinator"].secret.expose()
    claims = maker.claims("coordinator", Role.SCIENTIST)
    tokens = {
        without: jwt.encode({name: value for name, value in claims.items() if name != without}, secret)
        for without in claims
    }
    tokens |= {algorithm: jwt.encode(claims, secret, algorithm) for algorithm in ("HS384", "HS512")}
    tokens["none"] = jwt.encode(claims, None, "none")
    assert {"exp", "aud", "iss", "sub", "jti", "iat", "role"} <= set(tokens)
    for what, token in tokens.items():
        assert await federation.answer("coordinator", SEARCH, SCIENTIST, token) is WHO, what
    good = maker.good("coordinator", Role.SCIENTIST)
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, good) is LET_IN


async def test_no_token_lives_for_ever(federation: Federation) -> None:
    """PyGrid: tokens of users never expire."""
    maker, now = federation.maker, int(datetime.now(UTC).timestamp())
    for_ever = maker.good("coordinator", Role.SCIENTIST, exp=now + 100 * 24 * 3600)
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, for_ever) is WHO
    over = maker.good("coordinator", Role.SCIENTIST, iat=now - 600, exp=now - 60)
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, over) is WHO
    with pytest.raises(InvalidInput, match="at most 90 days"):
        TokenIssuer(maker.secrets["coordinator"]).issue(
            subject="dana", role=Role.SCIENTIST, lifetime=timedelta(days=91)
        )
    tokens = await log_in(
        owners_profile(federation.cluster, "beta"),
        name="owner",
        password=password_of(federation.cluster, "beta"),
    )
    said = jwt.decode(tokens.access_token, options={"verify_signature": False})
    assert 0 < said["exp"] - now <= 11 * 60
    assert tokens.refresh_expires_at.seconds - now <= 90 * 24 * 3600


async def test_no_two_installations_share_a_key(federation: Federation, tmp_path: Path) -> None:
    """PyGrid: a constant signing key is the default."""
    for name in ("one", "two"):
        create_keys(tmp_path / name, hospitals=HOSPITALS, clients=["scientist"])
    secrets = [secrets_below(tmp_path / "one"), secrets_below(tmp_path / "two")]
    secrets.append(secrets_below(federation.cluster.root))
    assert all(len(found) >= 10 for found in secrets)
    for first, second in combinations(secrets, 2):
        assert not first & second
    stranger = TokenIssuer(issuing_secret(tmp_path / "one", "federation")).issue(
        subject="dana", role=Role.SCIENTIST, lifetime=timedelta(hours=1)
    )
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, stranger) is WHO


def test_a_service_without_its_secret_does_not_start(federation: Federation, tmp_path: Path) -> None:
    """PyGrid: a service that nobody gave a key starts with one that everybody knows."""
    started = []
    for service in federation.cluster.services:
        if service.name in {"coordinator", "party-0", "hospital-alpha"}:
            settings = (federation.cluster.folder(service.name) / "settings.toml").read_text("utf-8")
            config = tmp_path / f"{service.name}.toml"
            # Everything it needs but the secret, which is not where the settings say.
            config.write_text(
                settings.replace("jwt.secret", "no-such.secret").replace(
                    '"keys/', f'"{federation.cluster.folder(service.name)}/keys/'
                )
            )
            command = [sys.executable, "-m", service.module, "--config", str(config)]
            started.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[3]
                )
            )
    for process in started:
        told, _ = process.communicate(timeout=90)
        assert process.returncode not in (0, None)
        assert b"no-such.secret" in told


def test_settings_and_profiles_hold_paths_and_no_secret(federation: Federation) -> None:
    """PyGrid: secrets in ConfigMaps."""
    root = federation.cluster.root
    secrets = {secret.strip().decode() for secret in secrets_below(root)}
    files = [
        file for pattern in ("settings.toml", "profile.toml", "owner.toml") for file in root.rglob(pattern)
    ]
    assert len(files) >= 15
    for file in files:
        text = file.read_text("utf-8")
        assert not any(secret in text for secret in secrets), file
        for key, value in leaves(tomllib.loads(text)):
            if key in {"secret", "key", "token", "worker_token", "storage_key", "certificate", "ca"}:
                assert (file.parent / value).is_file(), f"{file}: {key}"


def leaves(table: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of everything in a TOML document."""
    if isinstance(table, dict):
        for name, value in table.items():
            yield from leaves(value, name)
    elif isinstance(table, list):
        for value in table:
            yield from leaves(value, key)
    else:
        yield key, table
