"""`trefoil coordinator`: for whoever runs the study service, and a look at who takes part."""

from __future__ import annotations

from typing import Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption
from libs.cli.serve import ConfigOption, KeysOption, become

app = typer.Typer(help="Run the coordinator; see who takes part.", no_args_is_help=True)


@app.command()
def serve(config: ConfigOption) -> None:
    """Run the coordinator in the foreground until Ctrl-C or SIGTERM."""
    become("services.coordinator", config)


@app.command()
def config(
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0:7400",
    parties: Annotated[
        tuple[str, str, str], typer.Option(help="Addresses of party 0, 1 and 2.", metavar="A B C")
    ] = ("party-0:7410", "party-1:7411", "party-2:7412"),
    keys: KeysOption = "keys",
) -> None:
    """Print an example of the settings file: trefoil coordinator config > coordinator.toml"""
    from libs.cli.settings_files import coordinator_settings, to_toml

    print(to_toml(coordinator_settings(listen=listen, parties=parties, keys=keys)), end="")


@app.command()
def status(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """The three parties, and which hospitals are attached."""
    from libs.cli.client.catalogue import describe_federation
    from libs.cli.client.session import open_session, run
    from libs.cli.output import human_moment, print_json, print_table
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

    async def ask() -> coordinator_pb2.DescribeFederationResponse:
        async with open_session(profile) as session:
            return await describe_federation(session)

    federation = run(ask())
    parties = [
        {"index": party.index, "address": party.endpoint.address, "identity": party.endpoint.identity}
        for party in federation.parties
    ]
    nodes = [
        {
            "name": node.name,
            "identity": node.identity,
            "online": node.online,
            "last_seen": node.last_seen.ToJsonString() if node.HasField("last_seen") else None,
            "version": node.version,
            "datasets": node.datasets,
        }
        for node in federation.nodes
    ]
    if as_json:
        print_json({"parties": parties, "nodes": nodes})
        return
    print_table(
        ["party", "address", "identity"],
        [[party["index"], party["address"], party["identity"]] for party in parties],
        title="Compute parties",
        if_empty="The coordinator names no parties. Check its settings.",
    )
    print_table(
        ["hospital", "online", "last seen", "version", ">data sets"],
        [
            [
                node["name"],
                "yes" if node["online"] else "no",
                human_moment(str(node["last_seen"])) if node["last_seen"] else "never",
                node["version"],
                node["datasets"],
            ]
            for node in nodes
        ],
        title="Hospitals",
        if_empty="No hospital has been approved and attached. See who asked: trefoil node list",
    )
