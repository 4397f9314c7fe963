"""`trefoil user`: accounts of a hospital's own staff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli import user_secrets
from libs.cli.login import print_login
from libs.cli.options import JsonOption, ProfileOption, RequestIdOption
from libs.cli.typed_secrets import CodeFileOption, PasswordFileOption, secret_from

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

app = typer.Typer(help="Accounts of a hospital's staff: invite, change, reset.", no_args_is_help=True)
app.command("password")(user_secrets.password)
app.command("second-factor")(user_secrets.second_factor)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
FullNameOption = Annotated[str, typer.Option(help="The person's full name.")]
RolesOption = Annotated[
    list[str] | None, typer.Option("--role", help="A role; repeat for more.", show_default=False)
]
GroupsOption = Annotated[
    list[str] | None, typer.Option("--group", help="A group; repeat for more.", show_default=False)
]


@app.command()
def claim(
    name: NameArgument,
    profile: ProfileOption,
    full_name: FullNameOption = "",
    code_file: CodeFileOption = None,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Become the owner of a new node, with the code from its disk (owner.code)."""
    from libs.cli.client.accounts import claim_node
    from libs.cli.client.session import run

    code = secret_from(code_file, ask="Code from the node's disk")
    password = secret_from(password_file, ask="New password", twice=True)
    tokens = run(claim_node(profile, code=code, name=name, full_name=full_name, password=password))
    print_login(tokens, name, as_json=as_json)


@app.command()
def accept(
    profile: ProfileOption,
    code_file: CodeFileOption = None,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an invitation: give your account its password, and log in."""
    from libs.cli.client.accounts import accept_invitation
    from libs.cli.client.session import run

    code = secret_from(code_file, ask="Code of the invitation")
    password = secret_from(password_file, ask="New password", twice=True)
    tokens = run(accept_invitation(profile, code=code, password=password))
    print_login(tokens, "the account that was invited", as_json=as_json)


@app.command("list")
def list_users(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Every account with its roles."""
    from libs.cli.client.pages import PAGE_SIZE, all_pages
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import human_moment, print_json, print_table
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async def ask() -> list[accounts_pb2.User]:
        async with open_session(profile) as session:

            async def fetch(token: str) -> accounts_pb2.ListUsersResponse:
                request = accounts_pb2.ListUsersRequest(page_size=PAGE_SIZE, page_token=token)
                return await session.accounts.ListUsers(request, timeout=CALL_TIMEOUT_S)

            return await all_pages(fetch, lambda page: page.users)

    users = run(ask())
    if as_json:
        print_json([view(user) for user in users])
        return
    rows = [view(user) for user in users]
    print_table(
        ["name", "full name", "roles", "groups", "state", "second factor", "last login", "locked until"],
        [
            [
                row["name"],
                row["full_name"],
                ", ".join(row["roles"]),
                ", ".join(row["groups"]),
                row["state"],
                "yes" if row["second_factor"] else "no",
                human_moment(row["last_login_at"]) if row["last_login_at"] else "never",
                human_moment(row["locked_until"]) if row["locked_until"] else "",
            ]
            for row in rows
        ],
        if_empty="There is no account yet. Begin with: trefoil user claim NAME",
    )


@app.command()
def me(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Who you are to the node, and what you may do."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async def ask() -> accounts_pb2.WhoAmIResponse:
        async with open_session(profile) as session:
            return await session.accounts.WhoAmI(accounts_pb2.WhoAmIRequest(), timeout=CALL_TIMEOUT_S)

    answer = run(ask())
    if as_json:
        print_json({**view(answer.user), "permissions": list(answer.permissions)})
        return
    roles = ", ".join(answer.user.roles) or "no role"
    results().print(f"You are [bold]{plain(answer.user.name)}[/] with {plain(roles)}. You may:")
    results().print(plain("\n".join(f"  {name}" for name in answer.permissions)))


@app.command()
def invite(
    name: NameArgument,
    profile: ProfileOption,
    full_name: FullNameOption = "",
    role: RolesOption = None,
    group: GroupsOption = None,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make an account, and print the one-time code with which its owner gives it a password."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    request = accounts_pb2.InviteUserRequest(
        request_id=request_id or new_id("request"),
        name=name,
        full_name=full_name,
        roles=role or [],
        groups=group or [],
    )

    async def ask() -> accounts_pb2.InviteUserResponse:
        async with open_session(profile) as session:
            return await session.accounts.InviteUser(request, timeout=CALL_TIMEOUT_S)

    _print_invitation(run(ask()).invitation, name, as_json=as_json)


@app.command()
def reset(
    name: NameArgument,
    profile: ProfileOption,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take an account's password, second factor and logins away, and print a new one-time code."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    request = accounts_pb2.ResetUserRequest(request_id=request_id or new_id("request"), name=name)

    async def ask() -> accounts_pb2.ResetUserResponse:
        async with open_session(profile) as session:
            return await session.accounts.ResetUser(request, timeout=CALL_TIMEOUT_S)

    _print_invitation(run(ask()).invitation, name, as_json=as_json)


@app.command()
def change(
    name: NameArgument,
    profile: ProfileOption,
    role: RolesOption = None,
    no_roles: Annotated[bool, typer.Option("--no-roles", help="Take every role of its own away.")] = False,
    group: GroupsOption = None,
    no_groups: Annotated[bool, typer.Option("--no-groups", help="Take it out of every group.")] = False,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Replace an account's roles or groups; it counts from its next call on."""
    from libs.core.errors import InvalidInput
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    if (role and no_roles) or (group and no_groups):
        raise InvalidInput("Give the new roles or groups, or say that there are none, not both.")
    if not (role or no_roles or group or no_groups):
        raise InvalidInput("Nothing to change. Give --role, --no-roles, --group or --no-groups.")
    request = accounts_pb2.ChangeUserRequest(
        request_id=request_id,
        name=name,
        set_roles=bool(role) or no_roles,
        roles=role or [],
        set_groups=bool(group) or no_groups,
        groups=group or [],
    )
    _change(profile, request, as_json=as_json)


@app.command()
def disable(
    name: NameArgument, profile: ProfileOption, request_id: RequestIdOption = "", as_json: JsonOption = False
) -> None:
    """Keep an account from logging in, and end its logins at once."""
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    off = accounts_pb2.ChangeUserRequest.ACTIVITY_DISABLED
    request = accounts_pb2.ChangeUserRequest(request_id=request_id, name=name, activity=off)
    _change(profile, request, as_json=as_json)


@app.command()
def enable(
    name: NameArgument, profile: ProfileOption, request_id: RequestIdOption = "", as_json: JsonOption = False
) -> None:
    """Let a disabled account log in again."""
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    on = accounts_pb2.ChangeUserRequest.ACTIVITY_ENABLED
    request = accounts_pb2.ChangeUserRequest(request_id=request_id, name=name, activity=on)
    _change(profile, request, as_json=as_json)


@app.command()
def transfer(
    to: Annotated[str, typer.Argument(metavar="NAME", help="The account that becomes the owner.")],
    profile: ProfileOption,
    password_file: PasswordFileOption = None,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Hand the node over to another owner (the owner only). You stay as an administrator."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    password = secret_from(password_file, ask="Your password")
    request = accounts_pb2.TransferOwnershipRequest(
        request_id=request_id or new_id("request"), to=to, password=password.expose()
    )

    async def ask() -> None:
        async with open_session(profile) as session:
            await session.accounts.TransferOwnership(request, timeout=CALL_TIMEOUT_S)

    run(ask())
    if as_json:
        print_json({"owner": to})
        return
    results().print(f"[bold]{plain(to)}[/] owns the node now; you are an administrator.")


def _change(profile: Path, request: accounts_pb2.ChangeUserRequest, *, as_json: bool) -> None:
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id

    request.request_id = request.request_id or new_id("request")

    async def ask() -> accounts_pb2.User:
        async with open_session(profile) as session:
            return (await session.accounts.ChangeUser(request, timeout=CALL_TIMEOUT_S)).user

    user = view(run(ask()))
    if as_json:
        print_json(user)
        return
    roles, groups = ", ".join(user["roles"]) or "none", ", ".join(user["groups"]) or "none"
    results().print(
        f"[bold]{plain(user['name'])}[/] is {user['state']}; roles: {plain(roles)}; groups: {plain(groups)}."
    )


def _print_invitation(invitation: accounts_pb2.Invitation, name: str, *, as_json: bool) -> None:
    from libs.cli.output import human_moment, plain, print_json, results

    until = invitation.expires_at.ToJsonString()
    if as_json:
        print_json({"name": name, "code": invitation.code or None, "expires_at": until})
    elif invitation.code:
        results().print(
            f"The code for [bold]{plain(name)}[/], good once and until {human_moment(until)}:\n\n"
            f"  {plain(invitation.code)}\n\n"
            "It is shown this once. Hand it over in person; it is used with: trefoil user accept"
        )
    else:
        results().print(
            "That was done before, and the code was shown then. "
            f"For a new one: trefoil user reset {plain(name)}"
        )


def view(user: accounts_pb2.User) -> dict[str, Any]:
    """For machines."""
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    state = accounts_pb2.User.State.Name(user.state).removeprefix("STATE_").lower()
    times = {
        "created_at": user.created_at if user.HasField("created_at") else None,
        "last_login_at": user.last_login_at if user.HasField("last_login_at") else None,
        "locked_until": user.locked_until if user.HasField("locked_until") else None,
    }
    return {
        "name": user.name,
        "full_name": user.full_name,
        "roles": list(user.roles),
        "groups": list(user.groups),
        "state": state,
        "second_factor": user.second_factor,
        **{name: None if moment is None else moment.ToJsonString() for name, moment in times.items()},
    }
