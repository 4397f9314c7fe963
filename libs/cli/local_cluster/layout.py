"""The folders of a local cluster: one per service and person, holding only what that one may hold.

ROOT/keys/                    the development CA and what issues tokens; nobody else's folder has these
ROOT/<service>/settings.toml  keys/ log.jsonl and what the service stores
ROOT/client-<name>/           profile.toml keys/ with tokens
ROOT/links/                   settings and log of the link emulator, if there is one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from shutil import copytree

from libs.cli.settings_files import (
    Settings,
    coordinator_settings,
    hospital_settings,
    party_settings,
    to_toml,
)
from libs.rpc.dev_ca import create_keys, issuing_secret
from libs.rpc.identity import COORDINATOR as COORDINATOR_IDENTITY
from libs.rpc.identity import Identity, Kind, TlsFiles, party_identity
from libs.rpc.tokens import Role, TokenIssuer
from libs.runtime.private_files import write_private

COORDINATOR = "coordinator"
PARTY_NAMES = ("party-0", "party-1", "party-2")
_FEDERATION_CLIENTS = {
    "scientist": Role.SCIENTIST,
    "clinic": Role.CLINICIAN,
    "operator": Role.OPERATOR,
}
_TOKEN_LIFETIME = timedelta(days=1)
HOSPITAL_NAMES = ("north", "east", "south", "west", "river", "lake", "hill", "forest")


@dataclass(frozen=True)
class Service:
    """One process of the cluster. `name` is also the name of its folder."""

    name: str
    module: str
    identity: Identity


def hospital_names(count: int) -> tuple[str, ...]:
    """Names for `count` hospitals."""
    extra = tuple(f"hospital{number}" for number in range(len(HOSPITAL_NAMES) + 1, count + 1))
    return (HOSPITAL_NAMES + extra)[:count]


def replica_name(party: int, cell: int) -> str:
    """`party-1` in cell 0, else `party-1-cell-2`."""
    return PARTY_NAMES[party] + (f"-cell-{cell}" if cell else "")


def services_of(hospitals: Sequence[str], cells: int = 1) -> tuple[Service, ...]:
    """Coordinator and parties first, for hospitals dial out to them."""
    coordinator = Service(COORDINATOR, "services.coordinator", COORDINATOR_IDENTITY)
    parties = [
        Service(replica_name(index, cell), "services.smpc_party", party_identity(index))
        for cell in range(cells)
        for index in range(len(PARTY_NAMES))
    ]
    nodes = [
        Service(f"hospital-{name}", "services.hospital_node", Identity(Kind.HOSPITAL, name))
        for name in hospitals
    ]
    return (coordinator, *parties, *nodes)


def write_settings(
    root: Path,
    hospitals: Sequence[str],
    addresses: Mapping[str, str],
    *,
    reached_at: Mapping[str, str],
    cells: int = 1,
    preapproved: bool = True,
    record_received: bool,
    overrides: Mapping[str, Settings],
) -> None:
    """Write every service's settings.toml. `addresses`: where each listens; `reached_at`: where the others
    find it. `preapproved`: the hospitals need no operator. `overrides`: service name -> keys to set on top
    (bench and tests use it).
    """
    groups = [[replica_name(index, cell) for index in range(len(PARTY_NAMES))] for cell in range(cells)]
    found = [[reached_at[name] for name in group] for group in groups]
    settings: dict[str, Settings] = {
        COORDINATOR: coordinator_settings(
            listen=addresses[COORDINATOR],
            parties=found[0],
            cells=found[1:],
            preapproved=[Identity(Kind.HOSPITAL, name).uri for name in hospitals] if preapproved else [],
        )
    }
    for cell, group in enumerate(groups):
        for index, name in enumerate(group):
            settings[name] = party_settings(
                index=index,
                listen=addresses[name],
                parties=found[cell],
                cell=cell,
                home=found[0][index] if cell else "",
            )
    for hospital in hospitals:
        name = f"hospital-{hospital}"
        settings[name] = hospital_settings(
            name=hospital, listen=addresses[name], coordinator=reached_at[COORDINATOR]
        )
        (root / name / "data").mkdir(exist_ok=True)
    for name, values in settings.items():
        if record_received:
            values["record_received_to"] = "received"
        (root / name / "settings.toml").write_text(to_toml(values | overrides.get(name, {})))


def make_identities(root: Path, hospitals: Sequence[str], cells: int = 1) -> None:
    """Keys, certificates and tokens for all services, scientist, clinic, operator and each hospital's staff.

    They are made in one place, as `trefoil keys init` does, and then moved: each folder gets its own and
    keeps nobody else's. A party's replicas share the party's identity, so they get copies.
    """
    keys = root / "keys"
    clients = [*_FEDERATION_CLIENTS, *[f"staff-{name}" for name in hospitals]]
    create_keys(keys, hospitals=hospitals, clients=clients)
    for name in hospitals:
        _write_token(keys, "federation", keys / f"hospital-{name}" / "worker.token", name, Role.WORKER)
        staff = keys / f"client-staff-{name}" / "hospital.token"
        _write_token(keys, f"hospital-{name}", staff, f"staff-{name}", Role.OWNER)
    for client, role in _FEDERATION_CLIENTS.items():
        _write_token(keys, "federation", keys / f"client-{client}" / "federation.token", client, role)
    owners = [service.name for service in services_of(hospitals)] + [f"client-{client}" for client in clients]
    for owner in owners:
        (keys / owner).rename(private_folder(root / owner) / "keys")
    for cell in range(1, cells):
        for index, name in enumerate(PARTY_NAMES):
            copytree(root / name / "keys", private_folder(root / replica_name(index, cell)) / "keys")


def _write_token(keys: Path, issuer: str, path: Path, subject: str, role: Role) -> None:
    """A token in its owner's folder, worth nothing without the key of the certificate beside it."""
    token = TokenIssuer(issuing_secret(keys, issuer)).issue(
        subject=subject,
        role=role,
        lifetime=_TOKEN_LIFETIME,
        certificate=(path.parent / "tls.crt").read_bytes(),
    )
    write_private(path, token)


def write_profiles(root: Path, hospitals: Sequence[str], reached_at: Mapping[str, str]) -> None:
    """The profile of every client."""
    tls = {"certificate": "keys/tls.crt", "key": "keys/tls.key", "ca": "keys/ca.crt"}
    for client in _FEDERATION_CLIENTS:
        coordinator = {"address": reached_at[COORDINATOR], "token": "keys/federation.token"}
        profile = {"tls": tls, "coordinator": coordinator}
        (root / f"client-{client}" / "profile.toml").write_text(to_toml(profile))
    for name in hospitals:
        node = {"name": name, "address": reached_at[f"hospital-{name}"], "token": "keys/hospital.token"}
        (root / f"client-staff-{name}" / "profile.toml").write_text(to_toml({"tls": tls, "hospital": node}))


def tls_files(folder: Path) -> TlsFiles:
    """The TLS files of a service's or client's folder."""
    keys = folder / "keys"
    return TlsFiles(certificate=keys / "tls.crt", key=keys / "tls.key", ca=keys / "ca.crt")


def private_folder(path: Path) -> Path:
    """Create it (and parents) for this user alone."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)  # on an existing folder as well
    return path
