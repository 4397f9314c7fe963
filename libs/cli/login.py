"""`trefoil login` and `trefoil logout`: for staff with an account at their hospital's node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption
from libs.cli.typed_secrets import PasswordFileOption, secret_from

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2


def login(
    profile: ProfileOption,
    name: Annotated[str, typer.Option(prompt=True, help="The name of your account.", show_default=False)],
    password_file: PasswordFileOption = None,
    second_factor: Annotated[
        str | None,
        typer.Option("--code", help="Six digits, if your account has a second factor.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Log in to your hospital's node; the profile's session file keeps the login until it ends."""
    from libs.cli.client.accounts import log_in
    from libs.cli.client.session import run

    password = secret_from(password_file, ask="Password")
    code = second_factor
    if code is None and password_file is None:
        code = typer.prompt(
            "Code of the second factor (empty without one)", default="", show_default=False, err=True
        )
    tokens = run(log_in(profile, name=name, password=password, second_factor=code or ""))
    print_login(tokens, name, as_json=as_json)


def logout(profile: ProfileOption) -> None:
    """End this login at the node and forget it here."""
    from libs.cli.client.accounts import log_out
    from libs.cli.client.session import run
    from libs.cli.output import results

    run(log_out(profile))
    results().print("Logged out.")


def print_login(tokens: accounts_pb2.Tokens, name: str, *, as_json: bool) -> None:
    """Which session began, and until when. Never a token."""
    from libs.cli.output import plain, print_json, results

    if as_json:
        print_json(_view(tokens, name))
        return
    until = tokens.refresh_expires_at.ToDatetime().isoformat(sep=" ", timespec="minutes")
    results().print(
        f"Logged in as [bold]{plain(name)}[/]. Unused, the session ends at {until} UTC. "
        "End it now: trefoil logout"
    )


def _view(tokens: accounts_pb2.Tokens, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "session_id": tokens.session_id,
        "ends_unless_used": tokens.refresh_expires_at.ToJsonString(),
    }
