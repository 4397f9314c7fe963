"""An identity is written one way only."""

from __future__ import annotations

import pytest

from libs.core.errors import InvalidInput
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity

EXAMPLES = [
    (COORDINATOR, "spiffe://trefoil.local/coordinator", "coordinator.trefoil.local"),
    (party_identity(2), "spiffe://trefoil.local/party/2", "2.party.trefoil.local"),
    (
        Identity(Kind.HOSPITAL, "st-mary"),
        "spiffe://trefoil.local/hospital/st-mary",
        "st-mary.hospital.trefoil.local",
    ),
    (Identity(Kind.CLIENT, "a"), "spiffe://trefoil.local/client/a", "a.client.trefoil.local"),
]


@pytest.mark.parametrize(("identity", "uri", "dns_name"), EXAMPLES)
def test_an_identity_has_one_uri_and_one_dns_name(identity: Identity, uri: str, dns_name: str) -> None:
    assert (identity.uri, identity.dns_name, str(identity)) == (uri, dns_name, uri)
    assert Identity.parse(uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://trefoil.local/",
        "spiffe://trefoil.local/coordinator/",
        "spiffe://trefoil.local/coordinator/x",
        "spiffe://trefoil.local/party",
        "spiffe://trefoil.local/party/3",
        "spiffe://trefoil.local/party/00",
        "spiffe://trefoil.local/party/٢",
        "spiffe://trefoil.local/hospital/",
        "spiffe://trefoil.local/hospital/a/b",
        "spiffe://trefoil.local/hospital/a.coordinator",
        "spiffe://trefoil.local/hospital/Alpha",
        "spiffe://trefoil.local/hospital/-a",
        "spiffe://trefoil.local/hospital/a\n",
        "spiffe://trefoil.local/hospital/" + "a" * 64,
        "spiffe://trefoil.local/root/a",
        "spiffe://elsewhere/coordinator",
        "https://trefoil.local/coordinator",
        "SPIFFE://trefoil.local/coordinator",
    ],
)
def test_what_is_not_exactly_an_identity_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        Identity.parse(uri)
