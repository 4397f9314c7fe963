"""Remote checks against a real HTTPS server on loopback: rotation, introspection, PyGrid, failures."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from structlog.testing import capture_logs

from libs.core.errors import InvalidInput, Unauthenticated, Unavailable
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.token_settings import (
    TokenIntrospectionSettings,
    TokenKeySettings,
    TokenSecretSettings,
    token_gate,
)
from tests.fakes.token_services import (
    AUDIENCE,
    ISSUER,
    HttpsService,
    TurnedClock,
    claims,
    ec_key,
    https_service,
    signed,
)

OPAQUE = "0paque-t0ken"
OLD, NEW = ec_key("old"), ec_key("new")


class Rig:
    """One service on loopback, one clock, and gates that ask it."""

    def __init__(self, service: HttpsService, folder: Path, stack: AsyncExitStack) -> None:
        self.service, self.folder, self.stack, self.clock = service, folder, stack, TurnedClock()
        secret = folder / "client.secret"
        secret.touch(mode=0o600)
        secret.write_text("s3cret/of us\n")
        (folder / "issuer.pem").write_bytes(OLD.as_pem(private=False))
        self.local = TokenKeySettings(issuer=ISSUER, audience=AUDIENCE, key=folder / "issuer.pem")

    def gate(self, *, keys: list[TokenKeySettings], asked: list[TokenIntrospectionSettings]) -> TokenGate:
        gate = token_gate([], keys, asked, clock=self.clock)
        self.stack.push_async_callback(gate.close)
        return gate

    def key_set(self, **changed: Any) -> TokenGate:
        said = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": self.service.url, "ca": self.service.ca}
        return self.gate(keys=[TokenKeySettings(**{**said, **changed})], asked=[])

    def entry(self, **changed: Any) -> TokenIntrospectionSettings:
        said = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "url": self.service.url,
            "ca": self.service.ca,
            "client_id": "trefoil",
            "client_secret": self.folder / "client.secret",
            "failures": 2,
        }
        return TokenIntrospectionSettings(**{**said, **changed})

    def asking(self, *, local: bool = False, **changed: Any) -> TokenGate:
        return self.gate(keys=[self.local] if local else [], asked=[self.entry(**changed)])

    def says(self, body: Any, *, status: int = 200) -> None:
        self.service.answer = lambda _asked: (status, json.dumps(body).encode())

    def lists(self, *keys: Any) -> None:
        self.says({"keys": [key.as_dict(private=False) for key in keys]})


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(https_service(tmp_path / "tls", lambda _: (500, b"")))
        yield Rig(service, tmp_path, stack)


# ---------------------------------------------------------------- key sets


async def test_keys_are_fetched_once_and_again_when_one_is_new(rig: Rig) -> None:
    rig.lists(OLD)
    gate = rig.key_set()
    for _ in range(3):
        assert (await gate.check(signed(OLD, "ES256", kid="old"))).subject == "dana"
    assert len(rig.service.asked) == 1
    rig.lists(NEW)
    rig.clock.seconds = 5
    assert (await gate.check(signed(NEW, "ES256", kid="new"))).subject == "dana"
    assert len(rig.service.asked) == 2
    with pytest.raises(Unauthenticated, match="does not list"):
        await gate.check(signed(OLD, "ES256", kid="old"))


async def test_made_up_key_ids_do_not_become_requests(rig: Rig) -> None:
    rig.lists(OLD)
    gate = rig.key_set()
    for number in range(20):
        with pytest.raises(Unauthenticated, match="does not list"):
            await gate.check(signed(NEW, "ES256", kid=f"made-up-{number}"))
    assert len(rig.service.asked) == 1


async def test_a_listed_key_id_does_not_help_another_key_and_no_key_id_is_refused(rig: Rig) -> None:
    rig.lists(OLD)
    gate = rig.key_set()
    with pytest.raises(Unauthenticated, match="signature is wrong"):
        await gate.check(signed(NEW, "ES256", kid="old"))
    with pytest.raises(Unauthenticated, match=r"\(kid\)"):
        await gate.check(signed(OLD, "ES256"))


async def test_keys_are_not_used_beyond_their_age_when_the_service_is_gone(rig: Rig) -> None:
    rig.lists(OLD)
    gate = rig.key_set(max_age_s=60)
    token = signed(OLD, "ES256", kid="old")
    await gate.check(token)
    rig.says({}, status=503)
    rig.clock.seconds = 59
    await gate.check(token)
    rig.clock.seconds = 60
    for _ in range(2):
        with pytest.raises(Unavailable):
            await gate.check(token)
    assert len(rig.service.asked) == 2


async def test_callers_share_one_fetch_and_one_that_leaves_does_not_end_it(rig: Rig) -> None:
    rig.lists(OLD)
    rig.service.delay_s = 0.2
    gate, token = rig.key_set(), signed(OLD, "ES256", kid="old")
    first = asyncio.create_task(gate.check(token))
    others = [asyncio.create_task(gate.check(token)) for _ in range(5)]
    await asyncio.sleep(0.05)
    first.cancel()
    assert {said.subject for said in await asyncio.gather(*others)} == {"dana"}
    assert len(rig.service.asked) == 1


# ---------------------------------------------------------------- introspection


async def test_an_opaque_token_is_what_its_issuer_says(rig: Rig) -> None:
    rig.says({"active": True, **claims(iat=None, aud=[AUDIENCE])})
    said = await rig.asking().check(OPAQUE)
    assert (said.subject, said.role.value, said.token_id) == ("dana", "scientist", "token-1")
    asked = rig.service.asked[0]
    assert (asked.method, parse_qs(asked.body.decode())["token"]) == ("POST", [OPAQUE])
    credentials = base64.b64decode(asked.headers["authorization"].removeprefix("Basic "))
    assert credentials == b"trefoil:s3cret%2Fof+us"


@pytest.mark.parametrize(
    "changed",
    [
        {"active": False},
        {"active": "true"},
        {"active": None},
        {"exp": 1},
        {"aud": "elsewhere"},
        {"aud": [AUDIENCE, "elsewhere"]},
        {"iss": "https://elsewhere.example"},
        {"role": "admin"},
        *({name: None} for name in ("exp", "aud", "iss", "sub", "jti", "role")),
    ],
)
async def test_an_answer_that_is_not_good_enough_refuses_and_is_remembered(
    rig: Rig, changed: dict[str, Any]
) -> None:
    rig.says(claims(**{"active": True, **changed}))
    gate = rig.asking(refused_for_s=10)
    for _ in range(2):
        with pytest.raises(Unauthenticated) as refusal:
            await gate.check(OPAQUE)
        assert OPAQUE not in str(refusal.value)
    assert len(rig.service.asked) == 1
    rig.says({"active": True, **claims()})
    rig.clock.seconds = 10
    await gate.check(OPAQUE)


async def test_an_acceptance_is_remembered_for_a_while_but_never_beyond_the_expiry(rig: Rig) -> None:
    rig.says({"active": True, **claims()})
    gate = rig.asking(accepted_for_s=400)
    for at, requests in [(0, 1), (399, 1), (400, 2), (599, 2), (600, 3)]:
        rig.clock.seconds = at
        await gate.check(OPAQUE)
        assert len(rig.service.asked) == requests, at
    rig.clock.seconds = 630
    with pytest.raises(Unauthenticated, match="expired"):
        await gate.check(OPAQUE)


async def test_a_service_that_fails_is_left_alone_and_then_asked_once(rig: Rig) -> None:
    gate = rig.asking(failures=2, open_s=10)
    for _ in range(5):
        with pytest.raises(Unavailable):
            await gate.check(OPAQUE)
    assert len(rig.service.asked) == 2
    rig.clock.seconds = 10
    with pytest.raises(Unavailable):
        await gate.check(OPAQUE)
    with pytest.raises(Unavailable, match="asked again"):
        await gate.check(OPAQUE)
    assert len(rig.service.asked) == 3
    rig.says({"active": True, **claims()})
    rig.clock.seconds = 20
    await gate.check(OPAQUE)


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"[]"), (200, b"\xff"), (200, b"x" * 300_000), (401, b"{}"), (302, b"{}")]
)
async def test_what_is_no_answer_is_unavailable(rig: Rig, status: int, body: bytes) -> None:
    rig.service.answer = lambda _asked: (status, body)
    rig.service.headers = b"location: https://127.0.0.1:1/\r\n"
    with capture_logs() as logs, pytest.raises(Unavailable) as failure:
        await rig.asking().check(OPAQUE)
    assert [entry["event"] for entry in logs] == ["token_service_failed"]
    assert OPAQUE not in f"{failure.value!r} {failure.value.__cause__!r} {failure.value.__context__!r} {logs}"


async def test_an_answer_that_could_unpack_to_any_size_is_unavailable(rig: Rig) -> None:
    rig.service.answer = lambda _asked: (
        200,
        gzip.compress(json.dumps({"active": True, **claims()}).encode()),
    )
    rig.service.headers = b"content-encoding: gzip\r\n"
    with capture_logs() as logs, pytest.raises(Unavailable):
        await rig.asking().check(OPAQUE)
    assert [entry["failure"] for entry in logs] == ["answer_compressed"]
    assert rig.service.asked[0].headers["accept-encoding"] == "identity"


async def test_a_slow_service_or_one_with_another_ca_is_unavailable(rig: Rig) -> None:
    rig.says({"active": True, **claims()})
    with pytest.raises(Unavailable):
        await rig.asking(ca=None).check(OPAQUE)
    assert rig.service.asked == []
    rig.service.delay_s = 5
    with pytest.raises(Unavailable):
        await rig.asking(timeout_s=0.2).check(OPAQUE)


@pytest.mark.parametrize("style", ["rfc7662", "pygrid"])
async def test_a_burst_with_one_token_asks_once_and_one_that_leaves_does_not_end_it(
    rig: Rig, style: str
) -> None:
    rig.says({"active": True, **claims()})
    rig.service.delay_s = 0.2
    gate = rig.asking(local=style == "pygrid", style=style, additional=style == "pygrid", accepted_for_s=0)
    token = signed(OLD, "ES256")
    first = asyncio.create_task(gate.check(token))
    others = [asyncio.create_task(gate.check(token)) for _ in range(20)]
    another = asyncio.create_task(gate.check(signed(OLD, "ES256")))
    await asyncio.sleep(0.05)
    first.cancel()
    said = await asyncio.gather(*others, another)
    assert {claimed.subject for claimed in said} == {"dana"}
    assert len(rig.service.asked) == 2
    rig.says({"active": False}, status=200 if style == "rfc7662" else 403)
    refused = await asyncio.gather(*(gate.check(token) for _ in range(20)), return_exceptions=True)
    assert {type(error) for error in refused} == {Unauthenticated}
    assert len(rig.service.asked) == 3


async def test_the_beginning_of_an_opaque_token_says_whom_to_ask_and_nobody_else_sees_it(
    rig: Rig, tmp_path: Path
) -> None:
    async with https_service(tmp_path / "second", lambda _: (200, b'{"active": false}')) as second:
        entries = [
            rig.entry(token_prefix="alpha-"),
            rig.entry(issuer="https://second.example", url=second.url, ca=second.ca, token_prefix="beta_"),
        ]
        gate = rig.gate(keys=[], asked=entries)
        rig.says({"active": True, **claims()})
        assert (await gate.check("alpha-1")).issuer == ISSUER
        with pytest.raises(Unauthenticated, match="not valid"):
            await gate.check("beta_1")
        with pytest.raises(Unauthenticated, match="begins like those of no issuer"):
            await gate.check("gamma-1")
        assert [len(service.asked) for service in (rig.service, second)] == [1, 1]
        gate = rig.gate(keys=[], asked=[entries[0], entries[1].model_copy(update={"token_prefix": ""})])
        with pytest.raises(Unauthenticated, match="not valid"):
            await gate.check("gamma-1")
        await gate.check("alpha-1")
        assert [len(service.asked) for service in (rig.service, second)] == [2, 2]
        for first, other in (("", ""), ("a", "a"), ("a", "ab")):
            clashing = [
                entries[0].model_copy(update={"token_prefix": first}),
                entries[1].model_copy(update={"token_prefix": other}),
            ]
            with pytest.raises(InvalidInput, match="token_prefix"):
                rig.gate(keys=[], asked=clashing)


async def test_an_answer_may_leave_out_the_issuer_or_say_the_subject_elsewhere_where_the_settings_say_so(
    rig: Rig,
) -> None:
    rig.says({"active": True, **claims(iss=None, sub=None), "client_id": "batch"})
    said = await rig.asking(assume_issuer=True, subject_claim="client_id").check(OPAQUE)
    assert (said.issuer, said.subject) == (ISSUER, "batch")
    for partly in ({"assume_issuer": True}, {"subject_claim": "client_id"}):
        with pytest.raises(Unauthenticated, match="lacks the claim"):
            await rig.asking(**partly).check(OPAQUE)
    rig.says({"active": True, **claims(iss="https://elsewhere.example")})
    with pytest.raises(Unauthenticated, match="another issuer"):
        await rig.asking(assume_issuer=True).check(OPAQUE)


# ---------------------------------------------------------------- in addition to a local check


async def test_an_additional_introspection_must_say_the_same_as_the_token(rig: Rig) -> None:
    gate = rig.asking(local=True, additional=True, accepted_for_s=0, refused_for_s=0)
    token = signed(OLD, "ES256")
    rig.says({"active": True, **claims()})
    assert (await gate.check(token)).subject == "dana"
    for changed in (
        {"active": False},
        {"sub": "erin"},
        {"role": "owner"},
        {"iss": "https://elsewhere.example"},
        {"aud": [AUDIENCE, "elsewhere"]},
        {"jti": "token-2"},
        {"exp": claims()["exp"] + 1},
        {"iat": claims()["iat"] + 1},
        {"cnf": {"x5t#S256": "A" * 43}},
    ):
        rig.says({"active": True, **claims(), **changed})
        with pytest.raises(Unauthenticated):
            await gate.check(token)


async def test_an_additional_introspection_may_leave_out_all_but_whether_the_token_is_active(
    rig: Rig,
) -> None:
    gate = rig.asking(local=True, additional=True, accepted_for_s=0, refused_for_s=0)
    for said in ({"active": True}, {"active": True, "aud": [AUDIENCE], "sub": "dana"}):
        rig.says(said)
        assert (await gate.check(signed(OLD, "ES256"))).role.value == "scientist"
    for said in ({"active": False}, {"sub": "dana"}, {}):
        rig.says(said)
        with pytest.raises(Unauthenticated, match="not valid"):
            await gate.check(signed(OLD, "ES256"))


async def test_pygrids_check_must_agree_and_is_not_asked_about_made_up_tokens(rig: Rig) -> None:
    gate = rig.asking(
        local=True, additional=True, style="pygrid", client_id=None, accepted_for_s=9, refused_for_s=9
    )
    with pytest.raises(Unauthenticated, match="signature"):
        await gate.check(signed(NEW, "ES256"))
    with pytest.raises(Unauthenticated, match="not a JSON Web Token"):
        await gate.check(OPAQUE)
    assert rig.service.asked == []
    token = signed(OLD, "ES256")
    rig.says({}, status=403)
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="does not accept"):
            await gate.check(token)
    assert [json.loads(asked.body) for asked in rig.service.asked] == [{"auth_token": token}]
    rig.clock.seconds = 9
    rig.says({})
    for _ in range(2):
        assert (await gate.check(token)).subject == "dana"
    assert len(rig.service.asked) == 2
    rig.clock.seconds = 18
    rig.says({}, status=204)
    with pytest.raises(Unavailable):
        await gate.check(token)


# ---------------------------------------------------------------- the gate and its settings


async def test_nothing_configured_means_that_nobody_gets_in() -> None:
    gate = token_gate([], [], [])
    for token in (OPAQUE, "", signed(OLD, "ES256")):
        with pytest.raises(Unauthenticated):
            await gate.check(token)


async def test_a_very_long_token_is_refused_before_anybody_is_asked(rig: Rig) -> None:
    with pytest.raises(Unauthenticated, match="longer"):
        await rig.asking().check("x" * 8193)
    assert rig.service.asked == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"url": "http://127.0.0.1/"}, "https"),
        ({"url": "https://user:pass@host/"}, "https"),
        ({"url": "https://host:port/"}, "https"),
        ({"style": "pygrid"}, "cannot decide alone"),
        ({"additional": True}, "no other check reads"),
        ({"client_id": None}, "needs client_id and client_secret"),
        ({"ca": Path("missing.crt")}, "CA certificate"),
        *(
            ({"additional": True, **alone}, "cannot set")
            for alone in (
                {"bound": True},
                {"one_time": True},
                {"token_prefix": "a"},
                {"assume_issuer": True},
                {"subject_claim": "client_id"},
            )
        ),
    ],
)
async def test_settings_that_do_not_fit_are_refused(rig: Rig, changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        rig.asking(**changed)


async def test_a_client_secret_that_everybody_may_read_is_refused(rig: Rig) -> None:
    (rig.folder / "client.secret").chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        rig.asking()


async def test_an_issuer_has_one_check_that_decides(rig: Rig) -> None:
    with pytest.raises(InvalidInput, match="same issuer"):
        rig.asking(local=True)
    entry = TokenKeySettings(issuer=ISSUER, audience=AUDIENCE, jwks_url=rig.service.url)
    with pytest.raises(InvalidInput, match="same issuer"):
        rig.gate(keys=[rig.local, entry], asked=[])
    secret = rig.folder / "jwt.secret"
    secret.touch(mode=0o600)
    secret.write_text("ab" * 32)
    shared = TokenSecretSettings(issuer=ISSUER, audience=AUDIENCE, secret=secret)
    with pytest.raises(InvalidInput, match="same issuer"):
        token_gate([shared], [rig.local], [])
    with pytest.raises(InvalidInput, match="either key"):
        token_gate([], [TokenKeySettings(issuer=ISSUER, audience=AUDIENCE)], [])
