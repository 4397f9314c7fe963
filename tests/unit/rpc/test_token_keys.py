"""Signed tokens of issuers with keys: what others made is accepted, and every forgery is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk

from libs.core.errors import InvalidInput, Unauthenticated
from libs.core.secret import Secret
from libs.rpc.token_checks.claims import Expected, Role, RoleRule
from libs.rpc.token_checks.keys import TokenKey, parse_key_set, read_public_keys
from libs.rpc.token_checks.signatures import HmacAlgorithm, KeyAlgorithm, verified
from libs.rpc.token_settings import TokenKeySettings, token_gate
from libs.rpc.tokens import TokenSecret, TokenVerifier
from tests.fakes.token_services import (
    AUDIENCE,
    ISSUER,
    NOON,
    TurnedClock,
    claims,
    ec_key,
    ed_key,
    rsa_key,
    signed,
)

RSA, EC, ED = rsa_key(), ec_key(), ed_key()
EXPECTED = Expected(ISSUER, AUDIENCE)


def pem_file(folder: Path, key: Any) -> Path:
    file = folder / "issuer.pem"
    file.write_bytes(key.as_pem(private=False))
    return file


def verifier(
    folder: Path, key: Any, *, rsa: KeyAlgorithm = KeyAlgorithm.RS256, expected: Expected = EXPECTED
) -> TokenVerifier:
    public = read_public_keys(pem_file(folder, key), rsa_algorithm=rsa)
    return TokenVerifier([TokenKey(expected, public)], clock=TurnedClock())


@pytest.mark.parametrize("algorithm", list(HmacAlgorithm))
def test_each_hmac_accepts_itself_alone_and_wants_a_secret_as_long_as_its_hash(
    algorithm: HmacAlgorithm,
) -> None:
    secret = b"s" * algorithm.hash_bytes
    entry = TokenSecret(issuer=ISSUER, secret=Secret(secret), audience=AUDIENCE, algorithm=algorithm)
    check = TokenVerifier([entry], clock=TurnedClock())
    for other in HmacAlgorithm:
        token = signed(jwk.OctKey.import_key(secret), other.value)
        if other is algorithm:
            assert check.verify(token).subject == "dana"
        else:
            with pytest.raises(Unauthenticated, match=f"not signed with {algorithm.value}"):
                check.verify(token)
    with pytest.raises(InvalidInput, match=f"shorter than {len(secret)} bytes"):
        TokenSecret(issuer=ISSUER, secret=Secret(secret[1:]), audience=AUDIENCE, algorithm=algorithm)


def forged(header: dict[str, Any], *, secret: bytes | None = None) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims())]
    signing = b".".join(parts)
    signature = b"" if secret is None else hmac.digest(secret, signing, hashlib.sha256)
    return (signing + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.mark.parametrize("key", [RSA, EC, ED])
@pytest.mark.parametrize("name", ["none", "None", "NONE", ""])
def test_an_unsigned_token_is_refused(tmp_path: Path, key: Any, name: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier(tmp_path, key).verify(forged({"alg": name, "typ": "JWT"}))


@pytest.mark.parametrize("key", [RSA, EC, ED])
def test_a_public_key_is_never_an_hmac_secret(tmp_path: Path, key: Any) -> None:
    check = verifier(tmp_path, key)
    pem = (tmp_path / "issuer.pem").read_bytes()
    for secret in (pem, pem.strip(), key.as_der(private=False)):
        with pytest.raises(Unauthenticated, match="not signed with"):
            check.verify(forged({"alg": "HS256"}, secret=secret))
    with pytest.raises(InvalidInput, match="token_keys"):
        TokenSecret(issuer=ISSUER, secret=Secret(pem), audience=AUDIENCE)
    with pytest.raises(TypeError):
        verified(signed(RSA, "RS256"), pem, KeyAlgorithm.RS256, EXPECTED, now=NOON)


def test_the_setting_pins_the_rsa_padding(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="not signed with RS256"):
        verifier(tmp_path, RSA).verify(signed(RSA, "PS256"))
    with pytest.raises(Unauthenticated, match="not signed with PS256"):
        verifier(tmp_path, RSA, rsa=KeyAlgorithm.PS256).verify(signed(RSA, "RS256"))


@pytest.mark.parametrize(
    ("key", "other", "algorithm"),
    [(RSA, rsa_key(), "RS256"), (EC, ec_key(), "ES256"), (ED, ed_key(), "EdDSA")],
)
def test_another_key_of_the_same_type_is_refused(
    tmp_path: Path, key: Any, other: Any, algorithm: str
) -> None:
    with pytest.raises(Unauthenticated, match="signature is wrong"):
        verifier(tmp_path, key).verify(signed(other, algorithm))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"exp": int(NOON.timestamp()) - 31, "iat": int(NOON.timestamp()) - 600}, "has expired"),
        ({"exp": int(NOON.timestamp()) + 91 * 86400}, "lifetime"),
        ({"iat": int(NOON.timestamp()) + 31}, "in the future"),
        ({"nbf": int(NOON.timestamp()) + 31}, "not valid yet"),
        ({"aud": "hospital-beta"}, "wrong audience"),
        ({"aud": [AUDIENCE, "hospital-beta"]}, "wrong audience"),
        ({"iss": "https://elsewhere.example"}, "issuer is not known"),
        ({"iss": 7}, "issuer is not known"),
        ({"exp": "soon"}, "whole seconds"),
        ({"exp": True}, "whole seconds"),
        ({"sub": ""}, "short text"),
        ({"jti": "x" * 201}, "short text"),
        ({"role": "admin"}, "role is not one of"),
        ({"role": ["owner"]}, "role is not one of"),
        *(
            ({name: None}, f"lacks the claim '{name}'")
            for name in ("exp", "iat", "aud", "sub", "jti", "role")
        ),
        ({"iss": None}, "issuer is not known"),
    ],
)
def test_a_claim_that_is_wrong_or_missing_refuses_the_token(
    tmp_path: Path, changed: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Unauthenticated, match=problem):
        verifier(tmp_path, EC).verify(signed(EC, "ES256", claims(**changed)))


@pytest.mark.parametrize(
    ("said", "role"),
    [
        ("openid trefoil:ask", Role.SCIENTIST),
        (["staff", "trefoil:own"], Role.OWNER),
        (["trefoil:ask", "trefoil:own"], None),
        ("openid", None),
        ([["trefoil:ask"]], None),
        ({"trefoil:ask": 1}, None),
    ],
)
def test_a_claim_can_be_mapped_to_exactly_one_role(tmp_path: Path, said: Any, role: Role | None) -> None:
    rule = RoleRule("scope", {"trefoil:ask": Role.SCIENTIST, "trefoil:own": Role.OWNER})
    check = verifier(tmp_path, ED, expected=Expected(ISSUER, AUDIENCE, rule))
    token = signed(ED, "EdDSA", claims(scope=said, role="operator"))
    if role is None:
        with pytest.raises(Unauthenticated, match="exactly one role"):
            check.verify(token)
    else:
        assert check.verify(token).role is role


@pytest.mark.parametrize(
    "part", [b"[" * 3000, b'{"iss":' * 800, b"\xff", b"9" * 5000, b"null", b'{"iss": NaN}']
)
def test_what_is_no_token_at_all_is_refused_in_every_place(tmp_path: Path, part: bytes) -> None:
    check = verifier(tmp_path, ED)
    bad = base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    head, payload, signature = signed(ED, "EdDSA").split(".")
    for token in (f"{bad}.{payload}.{signature}", f"{head}.{bad}.{signature}", bad, f"{head}.{payload}.", ""):
        with pytest.raises(Unauthenticated):
            check.verify(token)


@pytest.mark.parametrize("key", [rsa_key(bits=1024), ec_key(curve="P-384")])
def test_weak_or_unused_kinds_of_keys_are_refused(tmp_path: Path, key: Any) -> None:
    with pytest.raises(InvalidInput, match="cannot be used"):
        read_public_keys(pem_file(tmp_path, key), rsa_algorithm=KeyAlgorithm.RS256)


def test_a_key_file_that_is_not_a_public_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "issuer.pem"
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_public_keys(file, rsa_algorithm=KeyAlgorithm.RS256)
    file.write_text("nothing")
    with pytest.raises(InvalidInput, match="not a public key"):
        read_public_keys(file, rsa_algorithm=KeyAlgorithm.RS256)
    file.write_bytes(RSA.as_pem(private=True))
    with pytest.raises(InvalidInput, match="holds a private key"):
        read_public_keys(file, rsa_algorithm=KeyAlgorithm.RS256)
    pem_file(tmp_path, RSA).chmod(0o666)
    with pytest.raises(InvalidInput, match="chmod o-w"):
        read_public_keys(file, rsa_algorithm=KeyAlgorithm.RS256)


def test_a_key_set_keeps_only_keys_that_may_check_tokens() -> None:
    weak, secret = rsa_key("weak", bits=1024), jwk.OctKey.generate_key(256, {"kid": "secret"})
    entries = [
        *(key.as_dict(private=False) for key in (RSA, EC, ED, weak, ec_key("p384", curve="P-384"))),
        secret.as_dict(private=True),
        {**EC.as_dict(private=False), "kid": "for-encryption", "use": "enc"},
        {**RSA.as_dict(private=False), "kid": "other-padding", "alg": "PS256"},
        {**RSA.as_dict(private=False), "kid": "hmac", "alg": "HS256"},
        {**EC.as_dict(private=False), "kid": "broken", "x": "AA"},
        *({**key.as_dict(private=False), "kid": "twice"} for key in (EC, ED)),
        {name: value for name, value in EC.as_dict(private=False).items() if name != "kid"},
        "not a key",
    ]
    kept = parse_key_set(json.dumps({"keys": entries}).encode(), rsa_algorithm=KeyAlgorithm.RS256)
    assert {kid: key.algorithm.value for kid, key in kept.items()} == {
        "rsa": "RS256",
        "ec": "ES256",
        "ed": "EdDSA",
    }


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff"])
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_key_set(document, rsa_algorithm=KeyAlgorithm.RS256)


# ---------------------------------------------------------------- several keys of one issuer


def pem_of(folder: Path, name: str, *keys: Any) -> Path:
    file = folder / name
    file.write_bytes(b"what each is for may stand between\n".join(key.as_pem(private=False) for key in keys))
    return file


def test_each_key_of_a_file_is_tried_and_what_the_token_says_is_told(tmp_path: Path) -> None:
    new = ec_key("new")
    keys = read_public_keys(pem_of(tmp_path, "all.pem", EC, RSA, new), rsa_algorithm=KeyAlgorithm.RS256)
    check = TokenVerifier([TokenKey(EXPECTED, keys)], clock=TurnedClock())
    for key, algorithm in ((EC, "ES256"), (RSA, "RS256"), (new, "ES256")):
        assert check.verify(signed(key, algorithm, kid="whatever")).subject == "dana"
        with pytest.raises(Unauthenticated, match="wrong audience"):
            check.verify(signed(key, algorithm, claims(aud="elsewhere")))
    for key, algorithm in ((ec_key(), "ES256"), (ED, "EdDSA"), (RSA, "PS256")):
        with pytest.raises(Unauthenticated, match="none of its issuer's keys"):
            check.verify(signed(key, algorithm))
    for key in (EC, RSA, new):
        with pytest.raises(Unauthenticated, match="none of its issuer's keys"):
            check.verify(forged({"alg": "HS256"}, secret=key.as_pem(private=False)))


def test_a_key_id_chooses_one_key_and_without_one_each_is_tried(tmp_path: Path) -> None:
    new = ec_key("new")
    entry = TokenKeySettings(
        issuer=ISSUER,
        audience=AUDIENCE,
        keys={"old": pem_of(tmp_path, "old.pem", EC), "new": pem_of(tmp_path, "new.pem", new)},
    )
    check = token_gate([], [entry], [], clock=TurnedClock())
    good = [signed(EC, "ES256", kid="old"), signed(new, "ES256", kid="new"), signed(new, "ES256")]
    for token in good:
        assert asyncio.run(check.check(token)).subject == "dana"
    for token, problem in (
        (signed(EC, "ES256", kid="new"), "signature is wrong"),
        (signed(EC, "ES256", kid="ancient"), "does not list"),
        (signed(EC, "ES256", kid=""), r"\(kid\)"),
        (signed(ec_key(), "ES256"), "none of its issuer's keys"),
    ):
        with pytest.raises(Unauthenticated, match=problem):
            asyncio.run(check.check(token))


def test_settings_of_keys_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    two = pem_of(tmp_path, "two.pem", EC, RSA)
    about = {"issuer": ISSUER, "audience": AUDIENCE}
    for entry, problem in (
        (TokenKeySettings(**about, keys={"a": two}), "several keys"),
        (TokenKeySettings(**about, keys={"a": two}, key=two), "only one of them"),
        (TokenKeySettings(**about), "only one of them"),
        (TokenKeySettings(**about, key=pem_of(tmp_path, "nine.pem", *[EC] * 9)), "1 to 8"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            token_gate([], [entry], [])


@pytest.mark.parametrize("also", [b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"])
def test_a_file_of_keys_holds_nothing_else(tmp_path: Path, also: bytes) -> None:
    file = pem_of(tmp_path, "mixed.pem", EC)
    file.write_bytes(file.read_bytes() + also)
    with pytest.raises(InvalidInput, match="not a public key"):
        read_public_keys(file, rsa_algorithm=KeyAlgorithm.RS256)


# ---------------------------------------------------------------- bound to a certificate


@pytest.mark.parametrize(
    "cnf",
    [
        {},
        None,
        "A" * 43,
        ["x5t#S256"],
        {"jkt": "A" * 43},
        {"x5t#S256": "A" * 43, "jkt": "A" * 43},
        {"x5t#S256": "A" * 42},
        {"x5t#S256": "A" * 42 + "="},
        {"x5t#S256": 7},
    ],
    ids=json.dumps,
)
def test_a_binding_that_nobody_checks_refuses_the_token(tmp_path: Path, cnf: Any) -> None:
    with pytest.raises(Unauthenticated, match="cnf"):
        verifier(tmp_path, EC).verify(signed(EC, "ES256", {**claims(), "cnf": cnf}))
