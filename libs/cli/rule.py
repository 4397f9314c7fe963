"""`trefoil rule`: what hospital staff approve before it is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption, RequestIdOption
from libs.cli.privacy_options import DeltaOption, EpsilonOption, WithoutPrivacyOption

app = typer.Typer(help="Approve beforehand what fits a rule.", no_args_is_help=True)


@app.command("list")
def list_rules(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """All rules, also those that are over (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import human_moment, print_json, print_table
    from libs.cli.privacy_options import in_words
    from libs.cli.request_views import rule_view

    found = consent.list_rules(profile)
    views = [rule_view(rule) for rule in found]
    if as_json:
        print_json(views)
        return
    print_table(
        ["rule", "purposes", "data sets", "plans", "requesters", "at most", ">uses", "until", "revoked"],
        [
            [
                view["rule_id"],
                ", ".join(view["purposes"]),
                ", ".join(view["datasets"]),
                ", ".join(f"{one[:12]}…" for one in view["plan_hashes"]) or "any",
                ", ".join(one.rsplit("/", 1)[-1] for one in view["requesters"]) or "anybody",
                in_words(rule.at_most),
                rule.uses,
                human_moment(view["until"]) if view["until"] else "",
                human_moment(view["revoked_at"]) if view["revoked_at"] else "",
            ]
            for rule, view in zip(found, views, strict=True)
        ],
        if_empty="There are no rules: every request waits for a decision.",
    )


@app.command()
def add(
    profile: ProfileOption,
    purpose: Annotated[list[str], typer.Option(help="training, prediction or statistics; repeat for more.")],
    dataset: Annotated[list[str], typer.Option(help="A data set of this hospital; repeat for more.")],
    plan_hash: Annotated[
        list[str] | None, typer.Option("--hash", help="Only this plan; repeat for more.", show_default="any")
    ] = None,
    requester: Annotated[
        list[str] | None,
        typer.Option(help="Only this client, by name or identity; repeat for more.", show_default="anybody"),
    ] = None,
    epsilon: EpsilonOption = "",
    delta: DeltaOption = "",
    without_privacy: WithoutPrivacyOption = False,
    uses: Annotated[int, typer.Option(min=1, help="Altogether, for each requester.")] = 1,
    until: Annotated[datetime | None, typer.Option(help="In UTC.", show_default="for ever")] = None,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Approve what comes from now on and fits. The limits hold for each requester altogether (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import plain, print_json, results
    from libs.cli.privacy_options import privacy_cost
    from libs.cli.request_views import PURPOSES, rule_view
    from libs.core.errors import InvalidInput
    from libs.rpc._generated.trefoil.hospital.v1 import access_pb2
    from libs.rpc.identity import Identity, Kind

    numbers = {name: number for number, name in PURPOSES.items()}
    unknown = [name for name in purpose if name not in numbers]
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is no purpose. Use {', '.join(numbers)}.")
    rule = access_pb2.Rule(
        purposes=[numbers[name] for name in purpose],
        dataset_names=dataset,
        plan_hashes=plan_hash or [],
        requester_identities=[
            name if "/" in name else Identity(Kind.CLIENT, name).uri for name in requester or []
        ],
        at_most=privacy_cost(epsilon=epsilon, delta=delta, without_privacy=without_privacy),
        uses=uses,
    )
    if until is not None:
        rule.until.FromDatetime(until.replace(tzinfo=UTC))
    added = consent.add_rule(profile, rule, call_id=request_id)
    if as_json:
        print_json(rule_view(added))
    else:
        results().print(f"Added the rule [bold]{plain(added.rule_id)}[/]. What waits already still waits.")


@app.command()
def revoke(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="The rule's id.")],
    profile: ProfileOption,
    with_approvals: Annotated[
        bool, typer.Option("--with-approvals", help="Also what it approved, and what runs under that.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a rule approve nothing from now on (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import plain, print_json, results

    consent.revoke_rule(profile, rule, with_approvals=with_approvals)
    if as_json:
        print_json({"rule_id": rule, "revoked": True, "with_approvals": with_approvals})
        return
    results().print(f"Revoked the rule [bold]{plain(rule)}[/].")
