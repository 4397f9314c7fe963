"""`trefoil node`: the federation's operator decides which hospitals belong to it."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption, RequestIdOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

app = typer.Typer(help="See which hospitals asked to join; approve, deny and revoke.", no_args_is_help=True)

HospitalArgument = Annotated[str, typer.Argument(metavar="HOSPITAL", help="Its name or identity.")]
KeyOption = Annotated[
    str, typer.Option("--key", help="SHA-256 of its key, as the hospital reads it out.", show_default=False)
]
ReasonOption = Annotated[str, typer.Option(help="One sentence that the hospital will read.")]


@app.command("list")
def list_nodes(
    profile: ProfileOption,
    state: Annotated[str, typer.Option(help="pending, approved, denied, revoked or left.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Every key with which a hospital asked to join, and what was decided."""
    from libs.cli.client.associations import STATE_NAMES, list_associations
    from libs.cli.client.session import open_session, run
    from libs.cli.output import print_json, print_table

    async def ask() -> list[coordinator_pb2.Association]:
        async with open_session(profile) as session:
            return await list_associations(session, state=state)

    found = run(ask())
    if as_json:
        print_json([view(association) for association in found])
        return
    print_table(
        ["hospital", "name", "state", "!key (SHA-256)", "decided by", "reason"],
        [
            [
                a.hospital_identity.rpartition("/")[2],
                a.name,
                STATE_NAMES.get(a.state, "unknown"),
                a.key_sha256,
                a.decided_by,
                a.reason,
            ]
            for a in found
        ],
        if_empty="No hospital has asked. Its node asks when it is started: trefoil hospital serve",
    )


@app.command()
def approve(
    hospital: HospitalArgument,
    profile: ProfileOption,
    key: KeyOption,
    reason: ReasonOption = "",
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let a hospital in with exactly this key. Compare it with what the hospital reads out to you."""
    _decide(profile, hospital, key, "approved", reason, request_id, as_json=as_json)


@app.command()
def deny(
    hospital: HospitalArgument,
    profile: ProfileOption,
    key: KeyOption = "",
    reason: ReasonOption = "",
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Refuse a hospital that asks to join. Without --key: the one that waits."""
    _decide(profile, hospital, key, "denied", reason, request_id, as_json=as_json)


@app.command()
def revoke(
    hospital: HospitalArgument,
    profile: ProfileOption,
    key: KeyOption = "",
    reason: ReasonOption = "",
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a hospital out at once: link and catalogue entries end, and rounds go on without it."""
    _decide(profile, hospital, key, "revoked", reason, request_id, as_json=as_json)


_BEFORE = {"denied": ("pending",), "revoked": ("approved", "left")}


def _decide(
    profile: Path, hospital: str, key: str, state: str, reason: str, request_id: str, *, as_json: bool
) -> None:
    from libs.cli.client.associations import decide_association, the_association
    from libs.cli.client.session import open_session, run
    from libs.cli.output import plain, print_json, results

    async def ask() -> coordinator_pb2.Association:
        async with open_session(profile) as session:
            chosen = key
            if not chosen:
                found = await the_association(session, hospital=hospital, states=_BEFORE[state])
                chosen = found.key_sha256
            return await decide_association(
                session,
                hospital=hospital,
                key_sha256=chosen,
                state=state,
                reason=reason,
                request_id=request_id,
            )

    decided = run(ask())
    if as_json:
        print_json(view(decided))
    else:
        results().print(f"[bold]{plain(decided.name)}[/] ({plain(decided.hospital_identity)}) is {state}.")


def view(association: coordinator_pb2.Association) -> dict[str, Any]:
    """For machines."""
    from libs.cli.client.associations import STATE_NAMES

    decided = association.HasField("decided_at")
    return {
        "hospital": association.hospital_identity,
        "name": association.name,
        "state": STATE_NAMES.get(association.state, "unknown"),
        "key_sha256": association.key_sha256,
        "requested_at": association.requested_at.ToDatetime(tzinfo=UTC),
        "decided_at": association.decided_at.ToDatetime(tzinfo=UTC) if decided else None,
        "decided_by": association.decided_by,
        "reason": association.reason,
    }
