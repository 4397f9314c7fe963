"""Every call needs a rule, a certificate of the right kind, and if the rule says so a token."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import grpc
import jwt
import pytest

from libs.core.errors import PermissionDenied, Unauthenticated
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2, coordinator_pb2_grpc
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc.channel import translate
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, party_identity
from libs.rpc.tokens import Role
from tests.fakes.rpc_rig import CLIENT, HOSPITAL, PARTY, Rig, code_of


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that are in order but for `changes`; None removes one."""
    now = int(time.time())
    good = {"iss": "trefoil-federation", "aud": "trefoil", "sub": "dana", "role": "scientist", "jti": "t-1"}
    merged = {**good, "iat": now, "exp": now + 600, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def signed(rig: Rig, payload: dict[str, Any], *, key: bytes | None = None, algorithm: str = "HS256") -> str:
    secret = issuing_secret(rig.keys, "federation").secret.expose()
    return jwt.encode(payload, secret if key is None else key, algorithm=algorithm)


def unsigned(payload: dict[str, Any]) -> str:
    """The classic forgery: the header says that there is no signature."""
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, payload)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def tampered(rig: Rig) -> str:
    """A clinician's token whose payload was changed to a scientist's."""
    header, _, signature = signed(rig, claims(role="clinician")).split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=").decode()
    return f"{header}.{payload}.{signature}"


async def put(rig: Rig, identity: Identity, **options: Any) -> pb.PutSharesResponse:
    stub = await rig.stub(identity, **options)
    return await stub.PutShares(iter([pb.PutSharesRequest(chunk=b"x")]))


async def test_the_handler_sees_who_calls_with_which_token(rig: Rig) -> None:
    await rig.serve()
    await put(rig, HOSPITAL, token=rig.token(Role.WORKER))
    caller = rig.party.callers[0]
    assert caller.identity == HOSPITAL
    assert caller.token is not None
    assert (caller.token.role, caller.token.subject) == (Role.WORKER, "someone")


NOW = int(time.time())
BAD_TOKENS: list[Any] = [
    pytest.param(lambda rig: signed(rig, claims(exp=NOW - 60, iat=NOW - 600)), "has expired", id="expired"),
    pytest.param(
        lambda rig: signed(rig, claims(iat=NOW + 3600, exp=NOW + 7200)), "in the future", id="future"
    ),
    pytest.param(lambda rig: signed(rig, claims(), key=b"x" * 32), "signature is wrong", id="forged"),
    pytest.param(tampered, "signature is wrong", id="tampered"),
    pytest.param(lambda rig: unsigned(claims()), "not signed with HS256", id="alg none"),
    pytest.param(
        lambda rig: signed(rig, claims(), algorithm="HS512"), "not signed with HS256", id="alg HS512"
    ),
    pytest.param(lambda rig: signed(rig, claims(aud="hospital-alpha")), "wrong audience", id="audience"),
    pytest.param(
        lambda rig: signed(rig, claims(aud=["trefoil", "other"])), "wrong audience", id="audience list"
    ),
    pytest.param(lambda rig: signed(rig, claims(iss="me")), "issuer is not known", id="issuer"),
    pytest.param(
        lambda rig: rig.token(Role.OWNER, issuer="hospital-alpha"), "issuer is not known", id="hospital's"
    ),
    pytest.param(lambda rig: signed(rig, claims(role="root")), "role is not one of", id="unknown role"),
    pytest.param(lambda rig: signed(rig, claims(exp=NOW + 10**8)), "lifetime is longer", id="eternal"),
    pytest.param(lambda rig: signed(rig, claims(exp="tomorrow")), "not a time", id="exp is text"),
    pytest.param(lambda rig: "not-a-token", "not a JSON Web Token", id="garbage"),
    *(
        pytest.param(
            lambda rig, name=name: signed(rig, claims(**{name: None})),
            "issuer is not known" if name == "iss" else f"lacks the claim '{name}'",
            id=f"no {name}",
        )
        for name in ("exp", "iat", "iss", "aud", "sub", "jti", "role")
    ),
]


@pytest.mark.parametrize(("make", "text"), BAD_TOKENS)
async def test_a_token_that_is_not_in_order_is_refused_and_says_why(rig: Rig, make: Any, text: str) -> None:
    await rig.serve()
    with pytest.raises(grpc.aio.AioRpcError, match=text) as failure:
        await put(rig, CLIENT, token=make(rig))
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(failure.value) == "unauthenticated"
    assert isinstance(translate(failure.value), Unauthenticated)
    assert rig.party.callers == []


async def test_a_missing_token_is_refused_and_says_how_to_get_one(rig: Rig) -> None:
    await rig.serve()
    with pytest.raises(grpc.aio.AioRpcError, match=r"needs a token\. Get one with: trefoil keys token"):
        await put(rig, CLIENT)


async def test_two_tokens_are_refused_rather_than_one_chosen(rig: Rig) -> None:
    await rig.serve()
    stub = await rig.stub(CLIENT, token=rig.token(Role.SCIENTIST))
    second = [("authorization", f"Bearer {rig.token(Role.SCIENTIST)}")]
    with pytest.raises(grpc.aio.AioRpcError, match="must be one text"):
        await stub.PutShares(iter([]), metadata=second)


async def test_another_scheme_than_bearer_is_refused(rig: Rig) -> None:
    await rig.serve()
    stub = await rig.stub(CLIENT)
    with pytest.raises(grpc.aio.AioRpcError, match="Bearer <token>"):
        await stub.PutShares(iter([]), metadata=[("authorization", f"Basic {rig.token(Role.SCIENTIST)}")])


async def test_the_wrong_role_is_refused_and_told_the_right_one(rig: Rig) -> None:
    await rig.serve()
    with pytest.raises(grpc.aio.AioRpcError, match="role scientist; yours says clinician") as failure:
        await put(rig, CLIENT, token=rig.token(Role.CLINICIAN))
    assert isinstance(translate(failure.value), PermissionDenied)


async def test_role_and_certificate_only_count_as_a_pair(rig: Rig) -> None:
    """A scientist's token at a hospital's machine and a worker's at a client's are both refused."""
    await rig.serve()
    for identity, role in ((HOSPITAL, Role.SCIENTIST), (CLIENT, Role.WORKER)):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await put(rig, identity, token=rig.token(role))
        assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert rig.party.callers == []


@pytest.mark.parametrize("identity", [party_identity(1), HOSPITAL, CLIENT])
async def test_the_certificate_of_another_service_is_refused(rig: Rig, identity: Identity) -> None:
    """Not even with a token: the method is the coordinator's alone."""
    await rig.serve()
    stub = await rig.stub(identity, token=rig.token(Role.OPERATOR))
    with pytest.raises(grpc.aio.AioRpcError, match="does not allow this call") as failure:
        await stub.OpenRound(pb.OpenRoundRequest())
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert code_of(failure.value) == "permission_denied"
    assert rig.party.callers == []


async def test_an_rpc_that_the_policy_does_not_list_is_refused_though_it_is_served(rig: Rig) -> None:
    called: list[bool] = []

    async def handle(request: bytes, _context: Any) -> bytes:
        called.append(True)
        return request

    def register(_servicer: object, server: grpc.aio.Server) -> None:
        method = grpc.unary_unary_rpc_method_handler(handle)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Extra", {"Call": method})]
        )

    await rig.serve(also=register)
    channel = await rig.channel(COORDINATOR)
    with pytest.raises(grpc.aio.AioRpcError, match="does not offer that method") as failure:
        await channel.unary_unary("/test.Extra/Call")(b"")
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert code_of(failure.value) == "permission_denied"
    assert called == []


async def test_a_listed_rpc_of_another_service_is_refused_in_the_same_words(rig: Rig) -> None:
    await rig.serve()
    stub: Any = coordinator_pb2_grpc.CoordinatorServiceStub(await rig.channel(CLIENT))
    with pytest.raises(grpc.aio.AioRpcError, match="does not offer that method"):
        await stub.ListModels(coordinator_pb2.ListModelsRequest())


async def test_an_unlisted_rpc_is_refused_for_streaming_clients_too(rig: Rig) -> None:
    await rig.serve()
    channel = await rig.channel(COORDINATOR)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await channel.stream_unary("/trefoil.party.v1.PartyService/Unknown")(iter([b"a", b"b"]))
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_party_is_a_party_whatever_name_the_message_carries(rig: Rig) -> None:
    """The identity is the certificate's: a party cannot act as the coordinator by saying so in metadata."""
    await rig.serve()
    stub = await rig.stub(PARTY)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.OpenRound(pb.OpenRoundRequest(), metadata=[("caller", COORDINATOR.uri)])
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
