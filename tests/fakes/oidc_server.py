"""A real OAuth 2 and OpenID Connect server that nobody here wrote: Debian's glewlwyd, on loopback.

Signed access tokens (RFC 9068) by client credentials and by password, a key set that rotates, introspection
and revocation. Its tokens name as `aud` the resource that was asked for (RFC 8707), which its password grant
cannot do: there `aud` is the scope.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import socket
import sqlite3
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.token_services import loopback_certificate

SCHEMA = Path("/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz")
MODULES = Path("/usr/lib/glewlwyd")
needs_glewlwyd = pytest.mark.skipif(
    shutil.which("glewlwyd") is None or not SCHEMA.exists() or not (MODULES / "plugin").is_dir(),
    reason="Debian's glewlwyd or its schema in /usr/share/doc is missing. As root: tools/system_packages.sh",
)

SCOPE, AUDIENCE = "trefoil-worker", "https://hospital-alpha.example"
CLIENT, CLIENT_SECRET = "batch", "s3cret-of-the-batch"
USER, USER_PASSWORD = "dana", "pa55word-of-dana"
_START_S = 20.0


@dataclass
class OidcServer:
    """Talks to the running server, as its administrator and as a client of it."""

    url: str
    ca: Path
    admin: httpx.AsyncClient

    @property
    def issuer(self) -> str:
        """What its tokens name as `iss`."""
        return f"{self.url}/api/oidc"

    async def token(self, *, grant: str = "client_credentials") -> str:
        """An access token of the client, or of the user with `grant="password"`."""
        asked = {"grant_type": grant, "scope": SCOPE, "resource": AUDIENCE}
        if grant == "password":
            asked |= {"username": USER, "password": USER_PASSWORD}
        answer = await self.admin.post("/oidc/token", data=asked, auth=(CLIENT, CLIENT_SECRET))
        return str(_good(answer).json()["access_token"])

    async def revoke(self, token: str) -> None:
        """Take a token back (RFC 7009)."""
        _good(await self.admin.post("/oidc/revoke", data={"token": token}, auth=(CLIENT, CLIENT_SECRET)))

    async def sign_with(self, *keys: Any) -> None:
        """From now on sign with the first key and list the public halves of all."""
        plugin = _plugin(self.issuer, keys)
        _good(await self.admin.put("/mod/plugin/oidc", json=plugin))
        _good(await self.admin.put("/mod/plugin/oidc/reset"))

    async def set_up(self, *keys: Any) -> None:
        """One scope, one client and one user, and the OpenID Connect plugin."""
        _good(await self.admin.post("/auth/", json={"username": "admin", "password": "password"}))
        for path, body in (
            ("/scope/", _SCOPE),
            ("/mod/plugin/", _plugin(self.issuer, keys)),
            ("/client/", _CLIENT),
            ("/user/", _USER),
        ):
            _good(await self.admin.post(path, json=body))


@asynccontextmanager
async def oidc_server(folder: Path, *keys: Any) -> AsyncIterator[OidcServer]:
    """The server, signing with the first of `keys` (joserfc's, with kid and alg), until the block ends."""
    certificate, key = loopback_certificate(folder)
    port = _free_port()
    url = f"https://127.0.0.1:{port}"
    config = _write_config(folder, url, port, certificate, key)
    process = await asyncio.create_subprocess_exec("glewlwyd", "--config-file", str(config))
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        async with httpx.AsyncClient(base_url=f"{url}/api", verify=context, trust_env=False) as admin:
            await _until_it_answers(admin, process, folder / "glewlwyd.log")
            server = OidcServer(url, folder / "ca.crt", admin)
            await server.set_up(*keys)
            yield server
    finally:
        await _end(process)


_SCOPE = {
    "name": SCOPE,
    "display_name": SCOPE,
    "description": SCOPE,
    "password_required": False,
    "scheme": {},
}
_CLIENT = {
    "client_id": CLIENT,
    "name": CLIENT,
    "password": CLIENT_SECRET,
    "confidential": True,
    "enabled": True,
    "redirect_uri": [],
    "authorization_type": ["client_credentials", "password"],
    "scope": [SCOPE],
    "resource": [AUDIENCE],
    "token_endpoint_auth_method": ["client_secret_basic"],
}
_USER = {"username": USER, "name": "Dana", "password": USER_PASSWORD, "scope": [SCOPE], "enabled": True}


def _plugin(issuer: str, keys: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "module": "oidc",
        "name": "oidc",
        "display_name": "OpenID Connect",
        "enabled": True,
        "parameters": {
            "iss": issuer,
            "jwks-private": json.dumps({"keys": [key.as_dict(private=True) for key in keys]}),
            "jwks-show": True,
            "jwt-type": "rsa",
            "jwt-key-size": "256",
            "access-token-duration": 600,
            "refresh-token-duration": 600,
            "code-duration": 60,
            "allow-non-oidc": True,
            "auth-type-client-enabled": True,
            "auth-type-password-enabled": True,
            "auth-type-code-enabled": False,
            "introspection-revocation-allowed": True,
            "introspection-revocation-allow-target-client": True,
            "resource-allowed": True,
            "resource-scope": {SCOPE: [AUDIENCE]},
            "resource-client-property": "resource",
        },
    }


def _write_config(folder: Path, url: str, port: int, certificate: Path, key: Path) -> Path:
    database = folder / "glewlwyd.db"
    with sqlite3.connect(database) as connection:
        connection.executescript(gzip.decompress(SCHEMA.read_bytes()).decode())
    said: dict[str, str | int | bool] = {
        "port": port,
        "bind_address": "127.0.0.1",
        "external_url": f"{url}/",
        "login_url": "login.html",
        "api_prefix": "api",
        "log_mode": "file",
        "log_level": "WARNING",
        "log_file": str(folder / "glewlwyd.log"),
        "cookie_secure": 1,
        "user_module_path": str(MODULES / "user"),
        "client_module_path": str(MODULES / "client"),
        "user_auth_scheme_module_path": str(MODULES / "scheme"),
        "user_middleware_module_path": str(folder),
        "plugin_module_path": str(MODULES / "plugin"),
        "use_secure_connection": True,
        "secure_connection_key_file": str(key),
        "secure_connection_pem_file": str(certificate),
        "secure_connection_ca_file": str(folder / "ca.crt"),
        "hash_algorithm": "SHA512",
    }
    lines = [f"{name}={json.dumps(value)}" for name, value in said.items()]
    config = folder / "glewlwyd.conf"
    config.write_text("\n".join([*lines, f'database = {{ type = "sqlite3"; path = "{database}"; }};', ""]))
    return config


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def _until_it_answers(
    client: httpx.AsyncClient, process: asyncio.subprocess.Process, log: Path
) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            try:
                await client.get("/")
            except httpx.TransportError:
                if process.returncode is not None:
                    pytest.fail(f"glewlwyd ended with {process.returncode}; see {log}")
                await asyncio.sleep(0.05)
            else:
                return


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _good(answer: httpx.Response) -> httpx.Response:
    """An answer with 200; what else it says is for the reader of the test's output."""
    assert answer.status_code == 200, f"{answer.request.url}: {answer.status_code} {answer.text}"
    return answer
