"""The settings files of the three services, written for people to edit and for the local cluster to use.

Paths in them are relative to the file itself. What each key means is documented on the service's settings
model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from libs.rpc.tokens import FEDERATION_AUDIENCE, FEDERATION_ISSUER

Settings = dict[str, Any]


def coordinator_settings(
    *,
    listen: str,
    parties: Sequence[str],
    cells: Sequence[Sequence[str]] = (),
    preapproved: Sequence[str] = (),
    keys: str = "keys",
) -> Settings:
    """Settings of the coordinator. `parties`: addresses of party 0, 1 and 2. `keys`: its folder of keys.

    `cells`: for each further cell the addresses of the three parties' replicas in it. `preapproved`:
    identities of hospitals that no operator has to approve.
    """
    return {
        "listen": listen,
        "preapproved": list(preapproved),
        "cells": [list(cell) for cell in cells],
        "database": "sqlite:///coordinator.db",
        "log_level": "info",
        "tls": _tls(keys),
        "token_secrets": [_federation_tokens(keys)],
        "parties": [_party(index, address) for index, address in enumerate(parties)],
    }


def party_settings(
    *, index: int, listen: str, parties: Sequence[str], cell: int = 0, home: str = "", keys: str = "keys"
) -> Settings:
    """Settings of party `index`; its peers are the other two of `parties`, its cell's addresses.

    `home`: the address of its replica in cell 0, for every other cell.
    """
    return {
        "index": index,
        "cell": cell,
        **({"home": home} if home else {}),
        "listen": listen,
        "store": f"store-{index}",
        "storage_key": f"{keys}/storage.key",
        "log_level": "info",
        "tls": _tls(keys),
        "token_secrets": [_federation_tokens(keys)],
        "peers": [_party(other, address) for other, address in enumerate(parties) if other != index],
    }


def hospital_settings(
    *, name: str, listen: str, coordinator: str, data_roots: Sequence[str] = ("data",), keys: str = "keys"
) -> Settings:
    """Settings of a hospital node. `data_roots`: the folders that its datasets may be published from."""
    return {
        "name": name,
        "listen": listen,
        "database": f"sqlite:///hospital-{name}.db",
        "work_dir": f"work-{name}",
        "data_roots": list(data_roots),
        "accounts_dir": f"accounts-{name}",
        "worker_token": f"{keys}/worker.token",
        "log_level": "info",
        "tls": _tls(keys),
        "token_secrets": [
            {"issuer": f"hospital-{name}", "secret": f"{keys}/jwt.secret", "audience": f"hospital-{name}"}
        ],
        "coordinator": {"address": coordinator},
    }


def to_toml(settings: Mapping[str, Any]) -> str:
    """TOML text: plain keys first, then tables, then lists of tables."""
    plain, tables = [], []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            tables.append(
                f"\n[{key}]\n" + "".join(f"{name} = {_literal(item)}\n" for name, item in value.items())
            )
        elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            for entry in value:
                lines = "".join(f"{name} = {_literal(item)}\n" for name, item in entry.items())
                tables.append(f"\n[[{key}]]\n{lines}")
        else:
            plain.append(f"{key} = {_literal(value)}\n")
    return "".join(plain + tables)


def _literal(value: object) -> str:
    """A TOML value. JSON's strings, numbers, booleans and lists are TOML's, but for a lone DEL character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _tls(keys: str) -> Settings:
    return {"certificate": f"{keys}/tls.crt", "key": f"{keys}/tls.key", "ca": f"{keys}/ca.crt"}


def _federation_tokens(keys: str) -> Settings:
    return {"issuer": FEDERATION_ISSUER, "secret": f"{keys}/jwt.secret", "audience": FEDERATION_AUDIENCE}


def _party(index: int, address: str) -> Settings:
    return {"index": index, "address": address, "identity": f"spiffe://trefoil.local/party/{index}"}
