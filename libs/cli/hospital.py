"""`trefoil hospital`: for the staff of one hospital and its node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption, RequestIdOption
from libs.cli.serve import ConfigOption, KeysOption, become

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

app = typer.Typer(
    help="Run a hospital node; see what it is doing; join and leave the federation.", no_args_is_help=True
)


@app.command()
def serve(config: ConfigOption) -> None:
    """Run the node in the foreground until Ctrl-C or SIGTERM. It dials out only."""
    become("services.hospital_node", config)


@app.command("owner-code")
def owner_code(config: ConfigOption) -> None:
    """Write a new one-time code for the node's owner to its disk (on the node's own machine)."""
    become("services.hospital_node.owner_code", config)


@app.command()
def config(
    name: Annotated[str, typer.Option(help="The hospital's name, as in its certificate.")],
    listen: Annotated[str, typer.Option(help="Address for the hospital's own staff.")] = "127.0.0.1:7420",
    coordinator: Annotated[str, typer.Option(help="Address of the coordinator.")] = "coordinator:7400",
    data_root: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder that data sets may be published from; repeat for more.", show_default="data"
        ),
    ] = None,
    keys: KeysOption = "keys",
) -> None:
    """Print an example of the settings file: trefoil hospital config --name north > hospital.toml"""
    from libs.cli.settings_files import hospital_settings, to_toml

    settings = hospital_settings(
        name=name, listen=listen, coordinator=coordinator, data_roots=data_root or ["data"], keys=keys
    )
    print(to_toml(settings), end="")


@app.command()
def status(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Whether the node is attached to the coordinator, and what it is doing."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> hospital_pb2.DescribeNodeResponse:
        async with open_session(profile) as session:
            request = hospital_pb2.DescribeNodeRequest()
            return await session.hospital.DescribeNode(request, timeout=CALL_TIMEOUT_S)

    node = run(ask())
    if as_json:
        print_json(
            {
                "name": node.name,
                "identity": node.identity,
                "attached_to_coordinator": node.attached_to_coordinator,
                "activity": node.activity,
                "in_federation": node.in_federation,
                "refusal": node.refusal,
                "version": node.version,
            }
        )
        return
    results().print(f"[bold]{plain(node.name)}[/] {_link(node)}; {plain(node.activity or 'idle')}.")
    if node.in_federation and node.refusal:
        results().print(f"The coordinator says: {plain(node.refusal)}")


def _link(node: hospital_pb2.DescribeNodeResponse) -> str:
    """In words."""
    if not node.in_federation:
        return "has left the federation (join again: trefoil hospital join)"
    if node.attached_to_coordinator:
        return "is attached to the coordinator"
    if node.refusal:
        return "is [red]waiting for the operator's approval[/]"
    return "is [red]not attached to the coordinator[/]"


@app.command()
def join(profile: ProfileOption, request_id: RequestIdOption = "", as_json: JsonOption = False) -> None:
    """Take part in the federation. Its operator has to approve this hospital first."""
    _change(profile, request_id, joins=True, as_json=as_json)


@app.command()
def leave(profile: ProfileOption, request_id: RequestIdOption = "", as_json: JsonOption = False) -> None:
    """Take part no longer: what runs is stopped and the data sets leave the catalogue. Nothing is deleted."""
    _change(profile, request_id, joins=False, as_json=as_json)


def _change(profile: Path, request_id: str, *, joins: bool, as_json: bool) -> None:
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    chosen = request_id or new_id("request")

    async def ask() -> None:
        async with open_session(profile) as session:
            if joins:
                join = hospital_pb2.JoinFederationRequest(request_id=chosen)
                await session.hospital.JoinFederation(join, timeout=CALL_TIMEOUT_S)
            else:
                leave = hospital_pb2.LeaveFederationRequest(request_id=chosen)
                await session.hospital.LeaveFederation(leave, timeout=CALL_TIMEOUT_S)

    run(ask())
    if as_json:
        print_json({"member": joins})
        return
    results().print(
        "The node asks the coordinator to let it in. See how far it is: trefoil hospital status"
        if joins
        else "The node leaves the federation. Its images, data sets and accounts stay as they are."
    )
