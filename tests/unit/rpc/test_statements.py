from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.types.v1.types_pb2 import SignedStatement
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import Identity, Kind, TlsFiles
from libs.rpc.statements import sign_statement, verify_statement
from tests.fakes.hospital_ports import NOW, FixedClock

ADA = Identity(Kind.CLIENT, "ada")


@pytest.fixture
def ca() -> DevelopmentCa:
    return DevelopmentCa(clock=FixedClock())


def tls_of(ca: DevelopmentCa, folder: Path) -> TlsFiles:
    ca.issue(ADA, folder)
    return TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")


def test_a_statement_comes_back_with_its_signer(ca: DevelopmentCa, tmp_path: Path) -> None:
    tls = tls_of(ca, tmp_path / "ada")
    signed = sign_statement("study", {"plan_hash": "ab", "dataset_ids": ["x/y"], "uses": 3}, tls=tls)
    said = verify_statement(signed, kind="study", ca=tls.ca.read_bytes(), now=NOW)
    assert (said.signer, said.text("plan_hash"), said.texts("dataset_ids")) == (ADA, "ab", ("x/y",))
    assert said.number("uses") == 3
    for wrong in (lambda: said.text("uses"), lambda: said.texts("plan_hash"), lambda: said.number("none")):
        with pytest.raises(InvalidInput, match="lacks"):
            wrong()


def test_a_changed_word_another_kind_or_a_foreign_certificate_is_refused(
    ca: DevelopmentCa, tmp_path: Path
) -> None:
    tls = tls_of(ca, tmp_path / "ada")
    trusted = tls.ca.read_bytes()
    signed = sign_statement("study", {"plan_hash": "ab"}, tls=tls)
    changed = SignedStatement()
    changed.CopyFrom(signed)
    changed.payload = signed.payload.replace(b"ab", b"ac")
    foreign = tls_of(DevelopmentCa(clock=FixedClock()), tmp_path / "foreign")
    theirs = sign_statement("study", {"plan_hash": "ab"}, tls=foreign)
    mixed = SignedStatement(
        payload=theirs.payload, signature=theirs.signature, certificate_chain=signed.certificate_chain
    )
    with pytest.raises(InvalidInput, match="signature"):
        verify_statement(changed, kind="study", ca=trusted, now=NOW)
    with pytest.raises(InvalidInput, match="kind access-request"):
        verify_statement(signed, kind="access-request", ca=trusted, now=NOW)
    with pytest.raises(InvalidInput, match="certificate"):
        verify_statement(theirs, kind="study", ca=trusted, now=NOW)
    with pytest.raises(InvalidInput, match="signature"):
        verify_statement(mixed, kind="study", ca=trusted, now=NOW)
    with pytest.raises(InvalidInput, match="certificate"):
        verify_statement(signed, kind="study", ca=trusted, now=NOW + timedelta(days=10_000))
    with pytest.raises(InvalidInput, match="certificate"):
        verify_statement(
            SignedStatement(payload=signed.payload, signature=signed.signature),
            kind="study",
            ca=trusted,
            now=NOW,
        )
