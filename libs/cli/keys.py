"""`trefoil keys`: certificates and tokens for development and for one machine."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.core.errors import InvalidInput

if TYPE_CHECKING:
    from libs.rpc.tokens import Role

app = typer.Typer(
    help="Certificates of the services, and tokens of people and workers.", no_args_is_help=True
)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ROLES = "scientist, clinician, worker, owner or operator"


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for all keys.")],
    hospital: Annotated[list[str] | None, typer.Option(help="A hospital node; repeat for each.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="A user's machine; repeat for each.")] = None,
) -> None:
    """Make a development CA, a certificate for every service, and the secrets that sign tokens."""
    from libs.rpc.dev_ca import create_keys

    create_keys(folder, hospitals=hospital or [], clients=client or [])
    typer.echo(
        f"Keys are in {folder}. Give each service and person their own subfolder. Keep {folder / 'ca'} and "
        f"{folder / 'federation'} to yourself: they make certificates and tokens."
    )


@app.command()
def token(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that keys init made.")],
    issuer: Annotated[str, typer.Option(help="federation or hospital-<name>.")],
    subject: Annotated[str, typer.Option(help="The person or worker it is for.")],
    role: Annotated[str, typer.Option(help=f"What they may be: {_ROLES}.")],
    audience: Annotated[
        str | None, typer.Option(help="Whom it is for; the issuer's own audience if left out.")
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long it is valid: 30m, 8h, 7d; at most 90d.")] = "8h",
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write, which only its owner can read; else it is printed."),
    ] = None,
) -> None:
    """Make a token for a person or worker."""
    from libs.rpc.dev_ca import issuing_secret
    from libs.rpc.tokens import TokenIssuer
    from libs.runtime.private_files import write_private

    secret = issuing_secret(folder, issuer)
    if audience not in {None, secret.audience}:
        raise InvalidInput(f"Tokens of {issuer} are for the audience {secret.audience}, not {audience}.")
    issued = TokenIssuer(secret).issue(subject=subject, role=_role(role), lifetime=_lifetime(ttl))
    if out is None:
        typer.echo(issued)
        return
    try:
        write_private(out, issued)
    except OSError as error:
        raise InvalidInput(f"The token cannot be written to {out}: {error.strerror}.") from error


def _role(name: str) -> Role:
    from libs.rpc.tokens import Role

    try:
        return Role(name)
    except ValueError as error:
        raise InvalidInput(f"{name!r} is not a role; use {_ROLES}.") from error


def _lifetime(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text, re.ASCII)
    if match is None:
        raise InvalidInput(f"{text!r} is not a duration; write for example 30m, 8h or 7d.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
