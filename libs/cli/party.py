"""`trefoil party`: for the three compute operators."""

from __future__ import annotations

from typing import Annotated

import typer

from libs.cli.serve import ConfigOption, KeysOption, become

app = typer.Typer(help="Run one of the three compute parties.", no_args_is_help=True)


@app.command()
def serve(config: ConfigOption) -> None:
    """Run the party in the foreground until Ctrl-C or SIGTERM."""
    become("services.smpc_party", config)


@app.command()
def config(
    index: Annotated[int, typer.Option(min=0, max=2, help="Which party: 0, 1 or 2.")],
    listen: Annotated[
        str | None,
        typer.Option(help="Address to listen on; without it, port 7410 + index.", show_default=False),
    ] = None,
    parties: Annotated[
        tuple[str, str, str], typer.Option(help="Addresses of party 0, 1 and 2.", metavar="A B C")
    ] = ("party-0:7410", "party-1:7411", "party-2:7412"),
    keys: KeysOption = "keys",
) -> None:
    """Print an example of the settings file: trefoil party config --index 0 > party-0.toml"""
    from libs.cli.settings_files import party_settings, to_toml

    address = listen or f"0.0.0.0:{7410 + index}"
    print(to_toml(party_settings(index=index, listen=address, parties=parties, keys=keys)), end="")
