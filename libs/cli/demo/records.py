"""What can be proved afterwards: the ledgers of the hospitals, and the trail of every service, verified."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from libs.cli.client.audit import SOURCES, export_trail
from libs.cli.client.session import CALL_TIMEOUT_S, open_session
from libs.cli.demo.staff import owners_profile
from libs.cli.local_cluster import LocalCluster
from libs.core.errors import PeerViolation
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2
from libs.rpc.signing import checkpoint_check, read_authorities
from libs.runtime.audit.findings import Report
from libs.runtime.audit.verify import verify_trail


@dataclass(frozen=True)
class Ledger:
    """One hospital's entries, oldest first, and what is left of its data sets' budgets."""

    entries: tuple[access_pb2.LedgerEntry, ...]
    balances: tuple[access_pb2.Balance, ...]


@dataclass(frozen=True)
class Records:
    """By hospital, and by service."""

    ledgers: dict[str, Ledger]
    trails: dict[str, Report]


async def collect_records(cluster: LocalCluster) -> Records:
    """Read and verify everything. PeerViolation names a service whose trail is not whole."""
    ledgers = {hospital: await _ledger(cluster, hospital) for hospital in cluster.hospitals}
    operator = cluster.profile("operator")
    asked = [(source, operator, source) for source in SOURCES if source != "hospital"]
    asked += [(f"hospital-{name}", owners_profile(cluster, name), "hospital") for name in cluster.hospitals]
    trails = {}
    for service, profile, source in asked:
        trails[service] = require_whole(service, await _verified(cluster, profile, source))
    return Records(ledgers, trails)


def require_whole(service: str, report: Report) -> Report:
    """The report; PeerViolation when something is wrong with the trail."""
    if report.finding is not None:
        raise PeerViolation(computation="audit", sender=service, rule=report.finding.text)
    return report


async def _ledger(cluster: LocalCluster, hospital: str) -> Ledger:
    async with open_session(owners_profile(cluster, hospital)) as owner:
        answer = await owner.access.ReadLedger(
            access_pb2.ReadLedgerRequest(page_size=1000), timeout=CALL_TIMEOUT_S
        )
    return Ledger(tuple(answer.entries), tuple(answer.balances))


async def _verified(cluster: LocalCluster, profile: Path, source: str) -> Report:
    async with open_session(profile) as session:
        lines = [line async for line in export_trail(session, source, address=None)]
    ca = cluster.folder("client-operator") / "keys" / "ca.crt"
    check = checkpoint_check(read_authorities(ca.read_bytes()))
    return await asyncio.to_thread(verify_trail, lines, check_signature=check)
