"""`trefoil role`: what accounts may do, by roles that come with the node and roles of the hospital's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption, RequestIdOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

app = typer.Typer(help="Roles and the permissions that they are made of.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The role's name.")]


@app.command("list")
def list_roles(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Every role, and every permission with what it allows."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import print_json, print_table
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async def ask() -> accounts_pb2.ListRolesResponse:
        async with open_session(profile) as session:
            return await session.accounts.ListRoles(accounts_pb2.ListRolesRequest(), timeout=CALL_TIMEOUT_S)

    answer = run(ask())
    meanings = dict(sorted(answer.permissions.items()))
    if as_json:
        print_json({"roles": [view(role) for role in answer.roles], "permissions": meanings})
        return
    print_table(
        ["role", "built in", "permissions", "description"],
        [
            [role.name, "yes" if role.built_in else "no", ", ".join(role.permissions), role.description]
            for role in answer.roles
        ],
        if_empty="There are no roles.",
    )
    print_table(["permission", "allows to"], list(meanings.items()), if_empty="There are no permissions.")


@app.command()
def save(
    name: NameArgument,
    profile: ProfileOption,
    permission: Annotated[
        list[str] | None, typer.Option("--permission", help="Repeat for more.", show_default=False)
    ] = None,
    description: Annotated[str, typer.Option(help="One sentence.")] = "",
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a role of your own, or say what it allows from now on; only what you may do yourself."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    role = accounts_pb2.Role(name=name, description=description, permissions=permission or [])
    request = accounts_pb2.SaveRoleRequest(request_id=request_id or new_id("request"), role=role)

    async def ask() -> accounts_pb2.Role:
        async with open_session(profile) as session:
            return (await session.accounts.SaveRole(request, timeout=CALL_TIMEOUT_S)).role

    saved = run(ask())
    if as_json:
        print_json(view(saved))
        return
    allowed = ", ".join(saved.permissions) or "nothing"
    results().print(f"The role [bold]{plain(saved.name)}[/] allows: {plain(allowed)}.")


@app.command()
def remove(
    name: NameArgument, profile: ProfileOption, request_id: RequestIdOption = "", as_json: JsonOption = False
) -> None:
    """Delete a role of your own that nobody has."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    request = accounts_pb2.RemoveRoleRequest(request_id=request_id or new_id("request"), name=name)

    async def ask() -> None:
        async with open_session(profile) as session:
            await session.accounts.RemoveRole(request, timeout=CALL_TIMEOUT_S)

    run(ask())
    if as_json:
        print_json({"name": name, "removed": True})
        return
    results().print(f"Removed the role [bold]{plain(name)}[/].")


def view(role: accounts_pb2.Role) -> dict[str, Any]:
    """For machines."""
    return {
        "name": role.name,
        "description": role.description,
        "permissions": list(role.permissions),
        "built_in": role.built_in,
    }
