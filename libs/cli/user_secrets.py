"""`trefoil user password` and `trefoil user second-factor`: what one does with one's own account."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption
from libs.cli.typed_secrets import PasswordFileOption, secret_from
from libs.core.errors import InvalidInput


def password(
    profile: ProfileOption,
    password_file: PasswordFileOption = None,
    new_password_file: Annotated[
        Path | None,
        typer.Option(help="File with the new password, instead of asking.", show_default=False),
    ] = None,
) -> None:
    """Another password for your account; its other logins end."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import results
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    old = secret_from(password_file, ask="Password")
    new = secret_from(new_password_file, ask="New password", twice=True)

    async def ask() -> None:
        async with open_session(profile) as session:
            request = accounts_pb2.ChangePasswordRequest(old_password=old.expose(), new_password=new.expose())
            await session.accounts.ChangePassword(request, timeout=CALL_TIMEOUT_S)

    run(ask())
    results().print("Your password is changed, and your other logins are over.")


def second_factor(
    profile: ProfileOption,
    confirm: Annotated[
        str | None, typer.Option(help="The app's code: from now on logins need one.", show_default=False)
    ] = None,
    remove: Annotated[
        str | None, typer.Option(help="The app's code: logins need none any more.", show_default=False)
    ] = None,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a second factor (prints a URI for an authenticator app), then --confirm it; or --remove it."""
    from libs.cli.client.session import run
    from libs.cli.output import print_json, results

    if confirm is not None and remove is not None:
        raise InvalidInput("Confirm a second factor or remove one, not both.")
    if confirm is not None:
        run(_confirm(profile, confirm))
        results().print("From now on your logins need a code of the app.")
        return
    typed = secret_from(password_file, ask="Password").expose()
    if remove is not None:
        run(_remove(profile, typed, remove))
        results().print("Your logins need no code any more.")
        return
    uri = run(_begin(profile, typed))
    if as_json:
        print_json({"provisioning_uri": uri})
        return
    results().print("Give this to your authenticator app, and to nobody else:\n", markup=False)
    print(f"  {uri}\n")
    results().print("Then: trefoil user second-factor --confirm CODE", markup=False)


async def _begin(profile: Path, typed: str) -> str:
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async with open_session(profile) as session:
        request = accounts_pb2.BeginSecondFactorRequest(password=typed)
        return (await session.accounts.BeginSecondFactor(request, timeout=CALL_TIMEOUT_S)).provisioning_uri


async def _confirm(profile: Path, code: str) -> None:
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async with open_session(profile) as session:
        request = accounts_pb2.ConfirmSecondFactorRequest(code=code)
        await session.accounts.ConfirmSecondFactor(request, timeout=CALL_TIMEOUT_S)


async def _remove(profile: Path, typed: str, code: str) -> None:
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

    async with open_session(profile) as session:
        request = accounts_pb2.RemoveSecondFactorRequest(password=typed, code=code)
        await session.accounts.RemoveSecondFactor(request, timeout=CALL_TIMEOUT_S)
