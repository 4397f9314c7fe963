"""`trefoil request`: scientists and clinics ask for data; hospital staff read who asks, and decide."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli import request_create
from libs.cli.options import JsonOption, ProfileOption
from libs.cli.privacy_options import DeltaOption, EpsilonOption, WithoutPrivacyOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import access_pb2

app = typer.Typer(help="Ask for data; read, approve, narrow, deny and revoke.", no_args_is_help=True)

app.command()(request_create.create)
app.command()(request_create.status)

RequestArgument = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")]
ReasonOption = Annotated[str, typer.Option(help="Told to whoever asked.")]


@app.command("list")
def list_requests(
    profile: ProfileOption,
    pending: Annotated[bool, typer.Option("--pending", help="Only those that wait for a decision.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Who asks for this hospital's data (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import print_json, print_table
    from libs.cli.request_views import request_row, request_view

    found = consent.list_requests(profile, pending_only=pending)
    if as_json:
        print_json([request_view(request) for request in found])
        return
    print_table(
        ["request", "purpose", "data set", "asked by", "asked", ">uses", "state", "approval"],
        [request_row(request) for request in found],
        if_empty="Nobody asks for this hospital's data.",
    )


@app.command()
def show(request: RequestArgument, profile: ProfileOption, as_json: JsonOption = False) -> None:
    """One request, with the plan, the hospitals and the readers that are approved with it (staff)."""
    from libs.cli.client import consent

    _print(consent.get_request(profile, request), as_json=as_json)


@app.command()
def approve(
    request: RequestArgument,
    profile: ProfileOption,
    plan_hash: Annotated[
        str, typer.Option("--hash", help="Approve only this plan (hex); without it, all is shown first.")
    ] = "",
    epsilon: EpsilonOption = "",
    delta: DeltaOption = "",
    without_privacy: WithoutPrivacyOption = False,
    uses: Annotated[int, typer.Option(min=0, help="Fewer uses than asked for.", show_default="as asked")] = 0,
    until: Annotated[
        datetime | None, typer.Option(help="When it ends, in UTC.", show_default="never")
    ] = None,
    reason: ReasonOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let this hospital's data be used as asked, or for less, and for nothing else (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import remarks
    from libs.cli.privacy_options import privacy_cost
    from libs.cli.request_views import request_text

    granted = privacy_cost(epsilon=epsilon, delta=delta, without_privacy=without_privacy)
    asked = consent.get_request(profile, request)
    if not plan_hash and not yes:
        remarks().print(request_text(asked))
        typer.confirm(f"Let {asked.dataset_name} be used for exactly this?", abort=True)
    decided = consent.decide(
        profile,
        request,
        plan_hash=plan_hash or asked.plan_hash,
        approve=True,
        reason=reason,
        granted=granted,
        uses=uses,
        expires_at=None if until is None else until.replace(tzinfo=UTC),
    )
    _print(decided, as_json=as_json)


@app.command()
def deny(
    request: RequestArgument,
    profile: ProfileOption,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Refuse a request, for good (staff)."""
    from libs.cli.client import consent

    asked = consent.get_request(profile, request)
    decided = consent.decide(profile, request, plan_hash=asked.plan_hash, approve=False, reason=reason)
    _print(decided, as_json=as_json)


@app.command()
def revoke(
    approval: Annotated[str, typer.Argument(metavar="APPROVAL", help="The approval, or its request.")],
    profile: ProfileOption,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """End an approval at once, and what runs under it (staff)."""
    from libs.cli.client import consent

    _print(consent.revoke(profile, approval, reason=reason), as_json=as_json)


def _print(request: access_pb2.AccessRequest, *, as_json: bool) -> None:
    from libs.cli.output import print_json, results
    from libs.cli.request_views import request_text, request_view

    if as_json:
        print_json(request_view(request))
    else:
        results().print(request_text(request))
