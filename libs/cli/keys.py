"""`trefoil keys`: certificates and tokens for development and for one machine."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.core.errors import InvalidInput, Unauthenticated

if TYPE_CHECKING:
    from libs.rpc.tokens import Role

app = typer.Typer(
    help="Certificates of the services, and tokens of people and workers.", no_args_is_help=True
)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FEDERATION_ROLES = ("scientist", "clinician", "worker", "operator", "auditor")
_HOSPITAL_ROLES = (
    "owner",
    "administrator",
    "compliance_officer",
    "scientist",
    "clinician",
    "auditor",
)
_ROLES = f"federation: {', '.join(_FEDERATION_ROLES)}; hospital: {', '.join(_HOSPITAL_ROLES)}"


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
    role: Annotated[str, typer.Option(help=f"What they may be. {_ROLES}.")],
    audience: Annotated[
        str | None, typer.Option(help="Whom it is for; the issuer's own audience if left out.")
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long it is valid: 30m, 8h, 7d; at most 90d.")] = "8h",
    bind: Annotated[
        Path | None,
        typer.Option(metavar="CERT.crt", help="Worth nothing without this certificate's private key."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write, which only its owner can read; else it is printed."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print its id and expiry too, as JSON; with --out only those.")
    ] = False,
) -> None:
    """Make a token for a person or worker."""
    from libs.rpc.dev_ca import issuing_secret
    from libs.rpc.tokens import TokenIssuer, TokenVerifier
    from libs.runtime.private_files import write_private

    secret = issuing_secret(folder, issuer)
    if audience not in {None, secret.audience}:
        raise InvalidInput(f"Tokens of {issuer} are for the audience {secret.audience}, not {audience}.")
    issued = TokenIssuer(secret).issue(
        subject=subject,
        role=_role(role, issuer=secret.issuer),
        lifetime=_lifetime(ttl),
        certificate=None if bind is None else _read(bind),
    )
    if out is not None:
        try:
            write_private(out, issued)
        except OSError as error:
            raise InvalidInput(f"The token cannot be written to {out}: {error.strerror}.") from error
    if as_json:
        claims = TokenVerifier([secret]).verify(issued)
        about = {"token_id": claims.token_id, "expires_at": claims.expires_at.isoformat()}
        typer.echo(json.dumps(about if out is not None else {"token": issued, **about}))
    elif out is None:
        typer.echo(issued)


@app.command()
def revoke(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that keys init made.")],
    issuer: Annotated[str, typer.Option(help="federation or hospital-<name>.")],
    token_id: Annotated[str | None, typer.Option(help="The id (jti) of the token.")] = None,
    token_file: Annotated[Path | None, typer.Option("--token", help="A file with the token.")] = None,
    subject: Annotated[
        str | None, typer.Option(help="A person or worker: all tokens that they have by now.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file that services name as token_revocations; revoked.toml beside the secret."
        ),
    ] = None,
) -> None:
    """Take back a token, or all of somebody: services that watch the file refuse it at the next call."""
    from libs.core.clock import SystemClock
    from libs.rpc.dev_ca import issuing_folder, issuing_secret
    from libs.rpc.revoke import revoke_subject, revoke_token

    secret = issuing_secret(folder, issuer)
    file = out or issuing_folder(folder, issuer) / "revoked.toml"
    if [token_id, token_file, subject].count(None) != 2:
        raise InvalidInput("Name one of --token-id, --token and --subject.")
    if subject is not None:
        # a token says its time in whole seconds: those of the running one are taken back too
        moment = SystemClock().now().replace(microsecond=0) + timedelta(seconds=1)
        added = revoke_subject(file, issuer=secret.issuer, subject=subject, issued_before=moment)
    else:
        revoked = token_id if token_file is None else _id_of(_read(token_file), secret.issuer)
        added = revoke_token(file, issuer=secret.issuer, token_id=str(revoked))
    typer.echo(f"{'Written to' if added else 'Already in'} {file}.")


def _id_of(token: bytes, issuer: str) -> str:
    """The id in a token of this issuer; whether it is a good one does not matter for taking it back."""
    from libs.rpc.token_checks.signatures import claimed_id

    text = token.decode("ascii", errors="replace").strip()
    try:
        said_issuer, token_id = claimed_id(text)
    except Unauthenticated as error:
        raise InvalidInput(str(error)) from error
    if said_issuer != issuer:
        raise InvalidInput(f"The token is from another issuer than {issuer}. Name that one.")
    return token_id


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error


def _role(name: str, *, issuer: str) -> Role:
    """The role, if services listen to it from that issuer."""
    from libs.rpc.tokens import FEDERATION_ISSUER, Role

    known = _FEDERATION_ROLES if issuer == FEDERATION_ISSUER else _HOSPITAL_ROLES
    if name not in known:
        raise InvalidInput(f"{issuer} gives nobody the role {name!r}; it gives {', '.join(known)}.")
    return Role(name)


def _lifetime(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text, re.ASCII)
    if match is None:
        raise InvalidInput(f"{text!r} is not a duration; write for example 30m, 8h or 7d.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
