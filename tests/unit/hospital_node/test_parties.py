"""The parties' addresses, as the coordinator names them again and again."""

from __future__ import annotations

from typing import Any

import pytest

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES
from libs.rpc.identity import Identity
from services.hospital_node.adapters.parties import ShareParties


class Dialler:
    """Gives channels that are only their names, and fails when told to."""

    def __init__(self) -> None:
        self.broken = False
        self.dialled: list[tuple[str, str]] = []

    def __call__(self, address: str, identity: Identity) -> Any:
        if self.broken:
            raise InvalidInput("The file tls.crt cannot be read.")
        self.dialled.append((address, identity.name))
        return f"{address} {identity.name}"


OLD = {party: f"old:{party}" for party in PARTIES}
NEW = {party: f"new:{party}" for party in PARTIES}


def test_an_address_that_could_not_be_dialled_is_dialled_when_it_is_named_again() -> None:
    dialler = Dialler()
    parties = ShareParties(dialler)
    parties.use(OLD)
    dialler.broken = True
    with pytest.raises(InvalidInput):
        parties.use(NEW)
    assert list(parties._named().values()) == ["old:0 0", "old:1 1", "old:2 2"]
    dialler.broken = False
    parties.use(NEW)
    assert list(parties._named().values()) == ["new:0 0", "new:1 1", "new:2 2"]


def test_channels_to_unchanged_addresses_stay() -> None:
    dialler = Dialler()
    parties = ShareParties(dialler)
    parties.use(OLD)
    parties.use(OLD)
    assert len(dialler.dialled) == 3
