"""What operator and owners do before and around the study: admit, claim, publish, allow, approve."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from libs.cli.client.accounts import claim_node
from libs.cli.client.associations import STATE_NAMES, decide_association, list_associations
from libs.cli.client.session import CALL_TIMEOUT_S, Session, open_session
from libs.cli.demo.material import DATASET_NAME, TAGS
from libs.cli.local_cluster import LocalCluster
from libs.cli.settings_files import to_toml
from libs.core.errors import DeadlineExceeded
from libs.core.ids import new_id
from libs.core.secret import Secret
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2, hospital_pb2
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost
from libs.runtime.private_files import write_private

T = TypeVar("T")

WAIT_S = 30.0
POLL_S = 0.1
_PUBLISH_TIMEOUT_S = 600.0
WITHOUT_PRIVACY = PrivacyCost(epsilon="inf", delta="0")
"""The demo's plan adds no noise, so owners say in so many words that none is needed."""


async def admit_hospitals(cluster: LocalCluster) -> None:
    """The operator approves every hospital that asked to join, by the key of its certificate."""
    async with open_session(cluster.profile("operator")) as operator:

        async def asked() -> dict[str, str] | None:
            found = {
                association.hospital_identity: association.key_sha256
                for association in await list_associations(operator)
                if STATE_NAMES.get(association.state) == "pending"
            }
            return found if len(found) == len(cluster.hospitals) else None

        for hospital, key in (await until(asked, "Not all hospitals asked to join")).items():
            await decide_association(operator, hospital=hospital, key_sha256=key, state="approved")


async def claim_nodes(cluster: LocalCluster) -> None:
    """The owner of every hospital claims its node with the code on its disk, and is logged in then."""
    await asyncio.gather(*(_claim(cluster, hospital) for hospital in cluster.hospitals))


async def publish_everywhere(cluster: LocalCluster) -> None:
    """The owner of every hospital publishes its folder, and allows that it is learned from without noise."""
    await asyncio.gather(*(_publish(cluster, hospital) for hospital in cluster.hospitals))


async def approve_everywhere(cluster: LocalCluster, *, plan_hash: str) -> None:
    """The owner of every hospital reads the scientist's request and approves this plan, once."""
    await asyncio.gather(*(_approve(cluster, hospital, plan_hash) for hospital in cluster.hospitals))


def owners_profile(cluster: LocalCluster, hospital: str) -> Path:
    """The profile of the hospital's owner, whose login `claim_nodes` saves."""
    return cluster.folder(f"client-staff-{hospital}") / "owner.toml"


async def until(look: Callable[[], Awaitable[T | None]], problem: str) -> T:
    """What `look` finds; DeadlineExceeded when that takes too long."""
    for _ in range(round(WAIT_S / POLL_S)):
        found = await look()
        if found is not None:
            return found
        await asyncio.sleep(POLL_S)
    raise DeadlineExceeded(f"{problem} within {WAIT_S:.0f} s. The logs of the processes say more.")


async def _claim(cluster: LocalCluster, hospital: str) -> None:
    profile = owners_profile(cluster, hospital)
    address = cluster.reached_at[f"hospital-{hospital}"]
    tls = {"certificate": "keys/tls.crt", "key": "keys/tls.key", "ca": "keys/ca.crt"}
    node = {"name": hospital, "address": address, "session": "owner-session.json"}
    profile.write_text(to_toml({"tls": tls, "hospital": node}), encoding="utf-8")
    password = secrets.token_urlsafe(18)
    write_private(profile.with_name("owner.password"), password)
    code_file = cluster.folder(f"hospital-{hospital}") / f"accounts-{hospital}" / "owner.code"
    await claim_node(
        profile,
        code=Secret(code_file.read_text("utf-8").strip()),
        name="owner",
        full_name=f"Data owner of {hospital}",
        password=Secret(password),
    )


async def _publish(cluster: LocalCluster, hospital: str) -> None:
    path = cluster.folder(f"hospital-{hospital}") / "data" / DATASET_NAME
    request = hospital_pb2.PublishDatasetRequest(
        request_id=new_id("request"),
        name=DATASET_NAME,
        description=f"Chest radiographs of {hospital}",
        tags=TAGS,
        path=str(path),
        licence="CC-BY-4.0",
        # The figures of the demo are those of exact weights.
        disclosure=hospital_pb2.COUNT_DISCLOSURE_EXACT,
    )
    budget = access_pb2.SetBudgetRequest(
        call_id=new_id("call"), dataset_name=DATASET_NAME, budget=WITHOUT_PRIVACY
    )
    async with open_session(owners_profile(cluster, hospital)) as owner:
        await owner.hospital.PublishDataset(request, timeout=_PUBLISH_TIMEOUT_S)
        await owner.access.SetBudget(budget, timeout=CALL_TIMEOUT_S)


async def _approve(cluster: LocalCluster, hospital: str, plan_hash: str) -> None:
    async with open_session(owners_profile(cluster, hospital)) as owner:
        asked = await until(lambda: _asked(owner, plan_hash), f"No request reached {hospital}")
        decision = access_pb2.DecideRequestRequest(
            call_id=new_id("call"),
            request_id=asked.request_id,
            plan_hash=plan_hash,
            approve=True,
            granted=WITHOUT_PRIVACY,
            uses=1,
        )
        await owner.access.DecideRequest(decision, timeout=CALL_TIMEOUT_S)


async def _asked(owner: Session, plan_hash: str) -> access_pb2.AccessRequest | None:
    answer = await owner.access.ListRequests(
        access_pb2.ListRequestsRequest(pending_only=True), timeout=CALL_TIMEOUT_S
    )
    return next((request for request in answer.requests if request.plan_hash == plan_hash), None)
