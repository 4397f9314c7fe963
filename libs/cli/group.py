"""`trefoil group`: accounts that share roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption, RequestIdOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

app = typer.Typer(help="Groups of accounts that share roles.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The group's name.")]


@app.command("list")
def list_groups(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Every group with its roles and members."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import print_json, print_table
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async def ask() -> list[accounts_pb2.Group]:
        async with open_session(profile) as session:
            request = accounts_pb2.ListGroupsRequest()
            return list((await session.accounts.ListGroups(request, timeout=CALL_TIMEOUT_S)).groups)

    groups = run(ask())
    if as_json:
        print_json([view(group) for group in groups])
        return
    print_table(
        ["group", "roles", "members", "description"],
        [[g.name, ", ".join(g.roles), ", ".join(g.members), g.description] for g in groups],
        if_empty="There is no group. Make one: trefoil group save NAME --role ROLE --member USER",
    )


@app.command()
def save(
    name: NameArgument,
    profile: ProfileOption,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="A role; repeat for more.", show_default=False)
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option("--member", help="An account; repeat for more.", show_default=False)
    ] = None,
    description: Annotated[str, typer.Option(help="One sentence.")] = "",
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a group, or replace its roles and members. Who is left out loses its roles."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    group = accounts_pb2.Group(name=name, description=description, roles=role or [], members=member or [])
    request = accounts_pb2.SaveGroupRequest(request_id=request_id or new_id("request"), group=group)

    async def ask() -> accounts_pb2.Group:
        async with open_session(profile) as session:
            return (await session.accounts.SaveGroup(request, timeout=CALL_TIMEOUT_S)).group

    saved = run(ask())
    if as_json:
        print_json(view(saved))
        return
    members, roles = ", ".join(saved.members) or "nobody", ", ".join(saved.roles) or "none"
    results().print(f"[bold]{plain(saved.name)}[/]: {plain(members)}; roles: {plain(roles)}.")


@app.command()
def remove(
    name: NameArgument, profile: ProfileOption, request_id: RequestIdOption = "", as_json: JsonOption = False
) -> None:
    """Delete a group; its members lose its roles."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    request = accounts_pb2.RemoveGroupRequest(request_id=request_id or new_id("request"), name=name)

    async def ask() -> None:
        async with open_session(profile) as session:
            await session.accounts.RemoveGroup(request, timeout=CALL_TIMEOUT_S)

    run(ask())
    if as_json:
        print_json({"name": name, "removed": True})
        return
    results().print(f"Removed the group [bold]{plain(name)}[/].")


def view(group: accounts_pb2.Group) -> dict[str, Any]:
    """For machines."""
    return {
        "name": group.name,
        "description": group.description,
        "roles": list(group.roles),
        "members": list(group.members),
    }
