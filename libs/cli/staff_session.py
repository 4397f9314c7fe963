"""`trefoil session`: where one is logged in, and how to end that."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption

app = typer.Typer(help="List and end logins at your hospital's node.", no_args_is_help=True)


@app.command("list")
def list_sessions(
    profile: ProfileOption,
    user: Annotated[str, typer.Option(help="Those of another account (who manages users).")] = "",
    as_json: JsonOption = False,
) -> None:
    """Every login of your account that goes on."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import human_moment, print_json, print_table, short_identity
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async def ask() -> list[accounts_pb2.Session]:
        async with open_session(profile) as session:
            request = accounts_pb2.ListSessionsRequest(user=user)
            return list((await session.accounts.ListSessions(request, timeout=CALL_TIMEOUT_S)).sessions)

    sessions = run(ask())
    if as_json:
        print_json([_view(one) for one in sessions])
        return
    print_table(
        ["session", "account", "from", "began", "last used", "ends unless used", ""],
        [
            [
                one.session_id,
                one.user,
                short_identity(one.client_identity),
                human_moment(one.began_at.ToDatetime()),
                human_moment(one.last_used_at.ToDatetime()),
                human_moment(one.expires_at.ToDatetime()),
                "this one" if one.current else "",
            ]
            for one in sessions
        ],
        if_empty="Nobody is logged in with that account.",
    )


@app.command()
def end(
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="As in: trefoil session list")],
    profile: ProfileOption,
    as_json: JsonOption = False,
) -> None:
    """End a login at once, for every call."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async def ask() -> None:
        async with open_session(profile) as session:
            request = accounts_pb2.EndSessionRequest(session_id=session_id)
            await session.accounts.EndSession(request, timeout=CALL_TIMEOUT_S)

    run(ask())
    if as_json:
        print_json({"session_id": session_id, "ended": True})
        return
    results().print(f"Ended [bold]{plain(session_id)}[/].")


def _view(one: Any) -> dict[str, Any]:
    return {
        "session_id": one.session_id,
        "account": one.user,
        "client": one.client_identity,
        "began_at": one.began_at.ToJsonString(),
        "last_used_at": one.last_used_at.ToJsonString(),
        "expires_at": one.expires_at.ToJsonString(),
        "current": one.current,
    }
